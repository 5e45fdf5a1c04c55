// The agent of examples/agent.ts, cut off at any call of the store and inside its model and its tools, over a real MCP server.
//
// A1. It ends with the answer, and with the conversation, of an undisturbed one.
// A2. Its chain verifies, and the fold of its ledger is what is stored.
// A3. A tool call whose outcome was recorded is never made again.
// A4. A call that is not speculative is made at most once more for each crash, under the same key: the bank pays each invoice once.
//
// By default every third point in memory, every seventh on SQLite, and a few kills of the program itself; with CRASH_SWEEP=full (`npm run
// crash`) all points, and a kill at every piece of the program's output.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { AbstractRuntimeError, createRuntime, isError, type Runtime, type Store } from "abstractruntime";
import { createLocalRuntime } from "abstractruntime/llm";
import { type McpTools, mcpTools } from "abstractruntime/mcp";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { combineTools, type ToolExecutor } from "abstractruntime/tools";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { payInvoices } from "../../examples/agent/invoices-script.ts";
import { scriptedModel } from "../../examples/agent/scripted-model.ts";
import { agent, invoices, ownTools, toPay } from "../../examples/agent.ts";
import { type Fault, faultyStore } from "../../src/testing/faulty-store.ts";
import { compiled } from "../compile-cache.ts";
import { fastClock, schedulerOptions } from "./workload.ts";
import { keptStore } from "../kept-store.ts";

const full = process.env.CRASH_SWEEP === "full";
const runId = "agent";
const clock = fastClock(20);

/** On this clock the time of a call would be over in seconds. */
const folder = { ...invoices, timeoutMs: 3_600_000, env: compiled() };

let directory: string;
let files: McpTools;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "agent-crash-"));
  files = mcpTools(folder);
});
afterAll(async () => {
  await files[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

/** Where it is cut off: at a call of the store, or inside the n-th call of the model or of a tool, before or after it has acted. */
type CrashPoint = { call: number; after: boolean } | { inside: number; after: boolean };

/** What one life of the process did: a key for each tool call that it made. */
interface Life {
  made: string[];
  paid: string[];
  insideCalls: number;
}

interface Ended {
  crashed: boolean;
  /** How many tool calls had their outcome in the ledger when it was cut off. */
  recorded: number;
  output: unknown;
  messages: unknown;
}

/** Lives, dies at the point, lives again over the same store, and ends. */
async function live(inner: Store, point?: CrashPoint, server: () => McpTools = () => files): Promise<Ended> {
  const payments: { key: string; to: string; eur: number }[] = [];
  let died = (): void => undefined;
  const death = new Promise<void>((resolve) => {
    died = resolve;
  });
  let dead = false;
  const die = (): never => {
    dead = true;
    died();
    throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store: inner.name, problem: "this process is dead" });
  };
  /** Runtimes close their store; this one outlives them. */
  const kept: Store = keptStore(inner);
  // That it is gone is all that others learn of it, as they do of a real process.
  const faults: Fault[] = [{ kind: "run", on: (method) => dead && method !== "retire", run: die }];
  if (point && "call" in point) faults.push({ kind: "run", call: point.call, after: point.after, run: die });

  const born = (store: Store, life: Life, crash?: { inside: number; after: boolean }): Promise<Runtime> => {
    /** Acts as the world does: it sees what is done, and that somebody dies before or after it. */
    const inside = async <T>(act: () => T | Promise<T>): Promise<T> => {
      const dies = ++life.insideCalls === crash?.inside;
      if (dies && !crash?.after) die();
      const result = await act();
      if (dies) die();
      return result;
    };
    const bank = {
      pay: (key: string, to: string, eur: number) =>
        inside(() => {
          life.paid.push(key);
          if (!payments.some((payment) => payment.key === key)) payments.push({ key, to, eur });
          return { paid: eur, to };
        }),
    };
    const model = scriptedModel(payInvoices);
    const doStream = model.doStream.bind(model);
    return createLocalRuntime({
      store,
      clock,
      scheduler: schedulerOptions,
      workflows: [agent],
      llm: Object.assign(model, { doStream: (options: Parameters<typeof doStream>[0]) => inside(async () => doStream(options)) }),
      tools: noting(combineTools(ownTools(bank), server()), life, inside),
    });
  };

  const first: Life = { made: [], paid: [], insideCalls: 0 };
  const runtime = await born(faultyStore(kept, faults), first, point && "inside" in point ? point : undefined).catch(expectDead);
  if (runtime) {
    const carried = carryOut(runtime).catch(expectDead);
    await Promise.race([carried, death]);
    await runtime.stop({ timeoutMs: 0 }).catch(expectDead);
    await carried;
  }
  await using reader = await createRuntime({ store: kept, clock, scheduler: false });
  const recorded = dead ? await completedKeys(reader) : new Set<string>();
  const second: Life = { made: [], paid: [], insideCalls: 0 };
  if (dead) {
    await using heir = await born(kept, second);
    await carryOut(heir);
  }

  const run = await reader.get(runId);
  expect({ status: run.status, error: run.error }).toEqual({ status: "completed", error: undefined }); // A1
  expect((await reader.verify(runId)).problems).toEqual([]); // A2
  expect([...second.made, ...second.paid].filter((key) => recorded.has(key))).toEqual([]); // A3
  expect(first.paid).toEqual([...new Set(first.paid)]); // A4
  expect(second.paid).toEqual([...new Set(second.paid)]);
  // The second one may overtake the first when that is tried again.
  const paid = payments.map(({ to, eur }) => `${to} ${eur}`).sort();
  expect(paid, JSON.stringify(run.vars.messages)).toEqual(["Ada's Bakery 42", "Bolt Hosting 110.4"]);
  return { crashed: dead, recorded: recorded.size, output: run.output, messages: run.vars.messages };
}

/** Notes each call that is really made; what waits for a person is not. */
function noting(tools: ToolExecutor, life: Life, inside: <T>(act: () => Promise<T>) => Promise<T>): ToolExecutor {
  return Object.assign(Object.create(tools) as ToolExecutor, {
    execute: (async (call, context) => {
      if (call.name === "pay") return tools.execute(call, context); // The bank notes it.
      life.made.push(context.idempotencyKey);
      return inside(() => tools.execute(call, context));
    }) satisfies ToolExecutor["execute"],
  });
}

/** The keys of tool calls whose outcome stands in the ledger. */
async function completedKeys(reader: Runtime): Promise<Set<string>> {
  const ledger = await reader.ledger(runId).catch((error: unknown) => {
    if (isError(error, "RUN_NOT_FOUND")) return [];
    throw error;
  });
  const keys = new Map<string, string>();
  for (const record of ledger)
    if (record.kind === "effect_started" && record.data.intent?.type === "tool_call")
      keys.set(record.effectId ?? "", record.hash);
  const done = ledger.flatMap(({ kind, effectId = "" }) => (kind === "effect_completed" ? [keys.get(effectId)] : []));
  return new Set(done.filter((key) => key !== undefined));
}

/** What the example's terminal does: starts or finds the run, allows what it asks, and waits for its end. */
async function carryOut(runtime: Runtime): Promise<void> {
  await runtime.start("agent", { runId, vars: { messages: toPay, tools: await files.tools() } });
  for (;;) {
    const [question] = (await runtime.get(runId)).waits.filter(({ reason }) => reason === "user");
    if (question)
      await runtime.resume(runId, { waitKey: question.waitKey, payload: { decision: "allow" } }).catch((error: unknown) => {
        if (!isError(error, "ALREADY_ANSWERED")) throw error;
      });
    const ended = await runtime.result(runId, { timeoutMs: 200 }).catch((error: unknown) => {
      if (!isError(error, "RESULT_TIMEOUT")) throw error;
    });
    if (ended !== undefined) return;
  }
}

function expectDead(error: unknown): undefined {
  if (!isError(error, "STORE_UNAVAILABLE") && !isError(error, "RUNTIME_STOPPED")) throw error;
}

const opened: Record<string, () => Promise<Store>> = {
  memory: async () => memoryStore({ clock }),
  SQLite: () => sqliteStore(join(mkdtempSync(join(directory, "store-")), "runs.db"), { clock }),
};

async function crashAt(kind: string, point: CrashPoint, server?: () => McpTools): Promise<Ended> {
  const store = await (opened[kind] as () => Promise<Store>)();
  try {
    const ended = await live(store, point, server);
    expect({ output: ended.output, messages: ended.messages }).toEqual(await undisturbed); // A1
    return ended;
  } catch (error) {
    throw new Error(`After a crash at ${JSON.stringify(point)} over ${kind}`, { cause: error });
  } finally {
    await store.close();
  }
}

let undisturbed: Promise<Pick<Ended, "output" | "messages">>;
beforeAll(async () => {
  const { output, messages } = await live(memoryStore({ clock }));
  expect(output).toEqual({ answer: "Ada's Bakery: paid. Bolt Hosting: paid." });
  undisturbed = Promise.resolve({ output, messages });
});

describe.each(Object.keys(opened))("the agent over %s", (kind) => {
  const stride = full ? 1 : kind === "memory" ? 3 : 7;
  describe.each([["before", false] as const, ["after", true] as const])("cut off %s", (_, after) => {
    test("any call of the store, ends as if nothing had happened", async () => {
      const points: Ended[] = [];
      for (let call = 1; points.at(-1)?.crashed !== false; call += stride) points.push(await crashAt(kind, { call, after }));
      expect(points.length * stride).toBeGreaterThan(50);
      // A list, two files, the rate, and two payments: by the last points most of them were recorded.
      expect(Math.max(...points.map(({ recorded }) => recorded))).toBeGreaterThan(2);
    }, 300_000);

    test("any act of its model and its tools, ends as if nothing had happened", async () => {
      let inside = 1;
      while ((await crashAt(kind, { inside, after })).crashed) inside += full || kind === "memory" ? 1 : 3;
      // Five turns of the model, and six tool calls.
      expect(inside).toBeGreaterThan(11);
    }, 300_000);
  });
});

test("a call to an MCP server that died with its process is made again, since it only reads", async () => {
  const servers: McpTools[] = [];
  const started = (): McpTools => {
    const made = mcpTools(folder);
    servers.push(made);
    return made;
  };
  try {
    // The folder, and a file: before and after they were read.
    for (const inside of [2, 4])
      for (const after of [false, true]) expect((await crashAt("memory", { inside, after }, started)).crashed).toBe(true);
    expect(servers).toHaveLength(8);
  } finally {
    await Promise.all(servers.map((made) => made.close()));
  }
});

/** Runs the program until it ends, or until it has written its n-th piece of output, where it is killed. */
function program(cwd: string, killAt: number): Promise<{ signal: string | null; output: string; errors: string }> {
  // By itself: whoever reads along gets the pieces as the machine brings them, many at once when it is busy.
  const dying = `
    const write = process.stdout.write.bind(process.stdout);
    let left = ${killAt};
    process.stdout.write = (...piece) => {
      const given = write(...piece);
      left -= 1;
      if (left === 0) process.kill(process.pid, "SIGKILL");
      return given;
    };`;
  const preload = ["--import", `data:text/javascript,${encodeURIComponent(dying)}`];
  return new Promise((resolvePromise, reject) => {
    const child = spawn(process.execPath, [...process.execArgv, ...preload, resolve("examples/agent.ts"), "--allow"], { cwd });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (errors += chunk));
    child.on("error", reject);
    child.on("close", (_, signal) => resolvePromise({ signal, output, errors }));
  });
}

test("the program, killed at any piece of its output, goes on where it was", async () => {
  let points = 0;
  for (let killAt = full ? 1 : 40; ; killAt += full ? 5 : 120) {
    const cwd = mkdtempSync(join(directory, "program-"));
    const { signal } = await program(cwd, killAt);
    if (signal === null) break;
    points += 1;
    expect(await program(cwd, Number.POSITIVE_INFINITY)).toMatchObject({ signal: null, errors: "" });
    await checkProgram(cwd);
  }
  expect(points).toBeGreaterThan(0);
}, 600_000);

test("the program, killed again and again, goes on where it was", async () => {
  const cwd = mkdtempSync(join(directory, "program-"));
  // Each life gets a little further than the one before. In smaller steps too many would end in the same model call, which is given up
  // then: it might be what ends them.
  let lives = 0;
  for (let killAt = 1; ; killAt += 12) {
    const { signal, output, errors } = await program(cwd, killAt);
    expect(errors).toBe("");
    lives += 1;
    if (signal === "SIGKILL") continue;
    expect(output).toContain("Ada's Bakery: paid. Bolt Hosting: paid.");
    break;
  }
  expect(lives).toBeGreaterThan(2);
  await checkProgram(cwd);
});

/** Each run has ended, has paid each invoice once, and is what its ledger says. */
async function checkProgram(cwd: string): Promise<void> {
  await using runtime = await createRuntime({
    store: await sqliteStore(join(cwd, ".abstractruntime/runs.db")),
    scheduler: false,
  });
  const { runs } = await runtime.list();
  for (const { runId, status } of runs) {
    expect(status).toBe("completed");
    expect((await runtime.verify(runId)).problems).toEqual([]);
  }
  // Killed behind the end of its run, in its last words, the program begins another: there are two then, and never more.
  expect([1, 2]).toContain(runs.length);
  const payments = readFileSync(join(cwd, ".abstractruntime/payments.jsonl"), "utf8").trimEnd().split("\n");
  expect(payments.map((line) => JSON.parse(line).eur)).toEqual(runs.flatMap(() => [42, 110.4]));
}
