// A run that waits for a budget, on the command line: what it says, and what moves it on.
import { complete, createRuntime, defineEffect, defineWorkflow, overBudget } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { afterAll, expect, test } from "vitest";
import { CommandLine, fixture } from "./command-line.ts";

const line = new CommandLine();
afterAll(() => line.remove());

const call = defineEffect("call", {
  run: async (_: unknown, { budget }) => {
    const over = await budget.reserve({ tokens: 60, calls: 1 });
    return over ? overBudget(over) : null;
  },
});
const flow = defineWorkflow({
  id: "flow",
  effects: [call],
  entry: "first",
  nodes: {
    first: () => call({}, { nextNode: "second" }),
    second: () => call({}, { nextNode: "end" }),
    end: () => complete({ done: true }),
  },
});

async function drive(budget?: { tokens: number; calls: number }): Promise<string> {
  const store = await sqliteStore(line.storePath);
  await using runtime = await createRuntime({ workflows: [flow], store, scheduler: false });
  if (budget) await runtime.start(flow, { runId: "r", budget });
  return (await runtime.tick("r")).status;
}

test("show and why say what is used, and the command that why gives lets the run go on", async () => {
  expect(await drive({ tokens: 100, calls: 5 })).toBe("waiting");
  const shown = await line.ar("show", "r");
  expect(shown.out).toMatch(/Budget +60 of 100 tokens/);
  expect(shown.out).toMatch(/Budget +1 of 5 calls/);
  expect((await line.ar("show", "r", "--json")).json.budgets).toEqual([
    { scope: "r", name: "tokens", used: 60, limit: 100, raised: 0 },
    { scope: "r", name: "calls", used: 1, limit: 5, raised: 0 },
  ]);
  const why = await line.ar("why", "r");
  expect(why.out).toContain("The budget of run r is 100 tokens, of which 60 tokens are used");
  expect(why.out).toContain("it looks for room again at");
  expect(why.out).toContain(`respond r '{"raise":{"tokens":60}}'`);
  expect((await line.ar("respond", "r", '{"raise":{"tokens":"many"}}')).code).not.toBe(0);
  expect((await line.ar("respond", "r", '{"raise":{"tokens":60}}')).code).toBe(0);
  expect(await drive()).toBe("completed");
  expect((await line.ar("show", "r")).out).toMatch(/Budget +120 of 160 tokens/);
});

test("run starts with a budget, and finds the run again only with the same", async () => {
  const run = (budget: string) =>
    line.ar("run", fixture("approval.ts"), "--vars", '{"topic":"x"}', "--id", "b", "--budget", budget);
  expect((await run('{"tokens":5,"usd":0.5}')).code).toBe(0);
  expect((await line.ar("show", "b", "--json")).json.budgets).toMatchObject([{ limit: 5 }, { limit: 0.5 }]);
  expect((await run('{"tokens":6}')).err).toContain("RUN_EXISTS");
  expect((await run("5")).err).toContain("--budget is not a JSON object");
  expect((await run('{"token":5}')).err).toContain('Did you mean "tokens"?');
});
