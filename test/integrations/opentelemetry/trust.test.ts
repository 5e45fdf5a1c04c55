// Telemetry is nothing that runs depend on: whatever it does, they go on, and without it nothing of it is there.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AlwaysOffSampler } from "@opentelemetry/sdk-trace";
import { expect, test } from "vitest";
import {
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  fanOut,
  goto,
  type Instrument,
  type Runtime,
  subworkflow,
  waitEvent,
} from "../../../src/index.ts";
import { openTelemetry } from "../../../src/integrations/opentelemetry/index.ts";
import { exportPython } from "../../../src/python/index.ts";
import { memoryStore } from "../../../src/stores/memory/index.ts";
import { sqliteStore } from "../../../src/stores/sqlite/index.ts";
import { eventually } from "../../eventually.ts";
import { type ReceivedSpan, startTelemetry, type Telemetry } from "./otlp-receiver.ts";

let headers: Readonly<Record<string, string>>[] = [];
const act = defineEffect("act", {
  run: async (_: unknown, context) => {
    headers.push(context.traceHeaders());
    return null;
  },
});
const child = defineWorkflow({ id: "child", entry: "a", nodes: { a: () => complete({}) } });
const flow = defineWorkflow({
  id: "flow",
  entry: "a",
  effects: [act],
  nodes: {
    a: () => goto("b"),
    b: () => act({}, { nextNode: "c" }),
    c: () => subworkflow(child, {}, { resultKey: "child", nextNode: "d" }),
    d: () => waitEvent("go", { nextNode: "e" }),
    e: () => complete({}),
  },
});

async function instrumentOf({ tracer, meter }: Telemetry): Promise<Instrument> {
  return openTelemetry({ tracer, meter });
}

/** Drives a run of `flow` to its end, and answers with its id. */
async function whole(runtime: Runtime): Promise<string> {
  headers = [];
  const { runId } = await runtime.run(flow);
  await runtime.signal(runId, "go");
  await runtime.result(runId);
  return runId;
}

const throwing = (): never => {
  throw new Error("telemetry is broken");
};

test("an instrument that throws is reported once, wherever it does, and the run does not notice", async () => {
  const plain = { headers: () => ({}), within: <T>(action: () => T) => action(), end: () => undefined };
  const good: Instrument = { here: () => ({}), begin: () => plain, committed: () => undefined, watch: () => () => undefined };
  const broken: Instrument[] = [
    { ...good, here: throwing },
    { ...good, begin: throwing },
    { ...good, committed: throwing },
    { ...good, watch: throwing },
    { ...good, watch: () => throwing },
    { ...good, begin: () => ({ ...plain, headers: throwing }) },
    { ...good, begin: () => ({ ...plain, end: throwing }) },
    { ...good, begin: () => ({ ...plain, within: throwing }) },
    // It calls what it is given, and throws then.
    {
      ...good,
      begin: () => ({
        ...plain,
        within: (action) => {
          action();
          return throwing();
        },
      }),
    },
    { here: throwing, begin: throwing, committed: throwing, watch: throwing },
  ];
  for (const telemetry of broken) {
    const reports: string[] = [];
    const log = { debug() {}, info() {}, warn() {}, error: (message: string) => void reports.push(message) };
    {
      await using runtime = await createRuntime({ store: memoryStore(), workflows: [child], telemetry, log });
      expect((await runtime.ledger(await whole(runtime))).at(-1)?.kind).toBe("run_completed");
      expect(headers).toEqual([{}]);
    }
    expect(reports).toEqual(["telemetry failed; what else it throws is not reported"]);
  }
});

test("what a handler or a node throws goes through telemetry as it is", async () => {
  await using telemetry = await startTelemetry();
  const nodes = {
    a: (): never => {
      throw new Error("thrown by the node");
    },
  };
  await using runtime = await createRuntime({ store: memoryStore(), telemetry: await instrumentOf(telemetry) });
  const { error } = await runtime.run(defineWorkflow({ id: "thrower", entry: "a", nodes }));
  expect(error?.message).toContain("thrown by the node");
});

test("a receiver that refuses everything keeps no run from its end", async () => {
  await using telemetry = await startTelemetry();
  telemetry.answer(400);
  await using runtime = await createRuntime({
    store: memoryStore(),
    workflows: [child],
    telemetry: await instrumentOf(telemetry),
  });
  expect((await runtime.ledger(await whole(runtime))).at(-1)?.kind).toBe("run_completed");
  await telemetry.spans().catch(() => []);
  expect(telemetry.raw).toBe("");
});

test("records carry the trace of their drive with telemetry, and are as before without", async () => {
  await using telemetry = await startTelemetry();
  const tracesOf = async (runtime: Runtime): Promise<(string | undefined)[]> => {
    const runId = await whole(runtime);
    expect(await runtime.verify(runId)).toMatchObject({ ok: true, problems: [] });
    return (await runtime.ledger(runId)).map(({ trace }) => trace);
  };
  {
    await using runtime = await createRuntime({ store: memoryStore(), workflows: [child] });
    expect((await tracesOf(runtime)).filter((trace) => trace !== undefined)).toEqual([]);
    expect(headers).toEqual([{}]);
  }
  await using runtime = await createRuntime({
    store: memoryStore(),
    workflows: [child],
    telemetry: await instrumentOf(telemetry),
  });
  const traces = (await tracesOf(runtime)).filter((trace) => trace !== undefined);
  await runtime.stop();
  const drives = (await telemetry.spans()).filter(({ name }) => name === "run flow");
  expect(traces).toEqual(drives.map(({ traceId, spanId }) => `00-${traceId}-${spanId}-01`));
  expect(traces.length).toBeGreaterThan(1);
});

test("what is not sampled is not sent, and still tells those it calls so", async () => {
  await using telemetry = await startTelemetry({ sampler: new AlwaysOffSampler() });
  await using runtime = await createRuntime({
    store: memoryStore(),
    workflows: [child],
    telemetry: await instrumentOf(telemetry),
  });
  await whole(runtime);
  expect(headers).toEqual([{ traceparent: expect.stringMatching(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/) }]);
  expect(await telemetry.spans()).toEqual([]);
});

test("without an SDK there is no context, and nothing is recorded of one", async () => {
  await using runtime = await createRuntime({ store: memoryStore(), workflows: [child], telemetry: await openTelemetry() });
  const ledger = await runtime.ledger(await whole(runtime));
  expect(headers).toEqual([{}]);
  expect(ledger.filter(({ trace }) => trace !== undefined)).toEqual([]);
});

test("children of a fan-out belong to the attempts that began them", async () => {
  await using telemetry = await startTelemetry();
  const many = defineWorkflow({
    id: "many",
    entry: "a",
    nodes: {
      a: () => fanOut(child, { items: [{}, {}, {}], concurrency: 2 }, { nextNode: "b" }),
      b: () => complete({}),
    },
  });
  await using runtime = await createRuntime({
    store: memoryStore(),
    workflows: [child],
    telemetry: await instrumentOf(telemetry),
  });
  const { runId } = await runtime.run(many);
  await runtime.result(runId);
  await runtime.stop();
  const spans = await telemetry.spans();
  const starts = spans.filter(({ name }) => name === "effect fan_out").map(({ spanId }) => spanId);
  const children = spans.filter(({ name }) => name === "run child");
  expect(children).toHaveLength(3);
  for (const { parentSpanId } of children) expect(starts).toContain(parentSpanId);
});

test("a drive that was cut off is linked to all the same; a fork and a replay are not its children", async () => {
  await using telemetry = await startTelemetry();
  let hangs = true;
  const slow = defineEffect("slow", {
    run: async () => {
      if (hangs) await new Promise(() => undefined);
      return null;
    },
  });
  const cut = defineWorkflow({
    id: "cut",
    entry: "a",
    effects: [slow],
    nodes: { a: () => goto("b"), b: () => slow({}, { nextNode: "c" }), c: () => complete({}) },
  });
  const place = mkdtempSync(join(tmpdir(), "telemetry-"));
  await using _ = { [Symbol.asyncDispose]: async () => rmSync(place, { recursive: true, force: true }) };
  const telling = await instrumentOf(telemetry);
  const open = async (): Promise<Runtime> =>
    createRuntime({ store: await sqliteStore(join(place, "runs.db")), workflows: [cut], telemetry: telling });
  const first = await open();
  const { runId } = await first.start(cut);
  while ((await first.ledger(runId)).at(-1)?.kind !== "effect_started") await new Promise((resolve) => setImmediate(resolve));
  await first.stop({ timeoutMs: 0 });
  hangs = false;
  await using runtime = await open();
  await runtime.result(runId);
  // A run's end is known once it is durable, which is before its drive is over.
  const drivesOf = (count: number): Promise<ReceivedSpan[]> =>
    eventually(async () => {
      const found = (await telemetry.spans()).filter(({ name }) => name === "run cut");
      return found.length === count && found;
    });
  const drives = await drivesOf(2);
  expect(drives.map(({ attributes }) => attributes["abstractruntime.outcome"])).toEqual(["broken", "completed"]);
  expect(drives[0]).toMatchObject({ status: { code: 2 }, attributes: { "error.type": "RUNTIME_STOPPED" } });
  expect(drives[1]?.links[0]).toMatchObject({ traceId: drives[0]?.traceId, spanId: drives[0]?.spanId });
  expect(drives[1]?.attributes["abstractruntime.run.id"]).toBe(runId);

  const fork = await runtime.fork(runId, { atSeq: 1 });
  await runtime.result(fork.runId);
  await runtime.replay(runId);
  expect((await drivesOf(3))[2]).toMatchObject({ parentSpanId: undefined, links: [] });
});

test("the Python form of a run is the same with and without telemetry", async () => {
  await using telemetry = await startTelemetry();
  const place = mkdtempSync(join(tmpdir(), "telemetry-"));
  try {
    await using runtime = await createRuntime({
      store: memoryStore(),
      workflows: [child],
      telemetry: await instrumentOf(telemetry),
    });
    const runId = await whole(runtime);
    await exportPython(runtime, [runId], place);
    const { stdout } = spawnSync("grep", ["-rlE", 'traceparent|"trace"|[0-9a-f]{32}-[0-9a-f]{16}-01', place], {
      encoding: "utf8",
    });
    expect(stdout).toBe("");
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
});

test("wrong options are refused by name", async () => {
  const refusals: [unknown, string][] = [
    [{ captureContents: true }, 'Unknown option "captureContents" in openTelemetry(). Did you mean "captureContent"?'],
    [{ captureContent: "yes" }, "captureContent is true or false"],
    [{ captureContent: true, redact: "yes" }, "redact is a function of an attribute and its value"],
    [{ redact: () => "" }, "redact is given and nothing is captured: set captureContent too"],
    [{ stuckAfterMs: 0 }, "stuckAfterMs must be a number above 0"],
  ];
  for (const [options, problem] of refusals)
    await expect(openTelemetry(options as never)).rejects.toMatchObject({
      code: "INVALID_OPTION",
      message: expect.stringContaining(problem),
    });
  await expect(createRuntime({ store: memoryStore(), telemetry: {} as never })).rejects.toMatchObject({ code: "INVALID_OPTION" });
});

const program = `
import { registerHooks } from "node:module";
registerHooks({
  resolve(specifier, context, next) {
    if (!specifier.startsWith("@opentelemetry/")) return next(specifier, context);
    throw Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" });
  },
});
const { openTelemetry } = await import("abstractruntime/opentelemetry");
await openTelemetry().catch(({ code, message }) => console.log(code, message));
`;

test("the missing package is named", () => {
  const { stdout, status } = spawnSync(process.execPath, [...process.execArgv, "--input-type=module", "--eval", program], {
    encoding: "utf8",
  });
  expect(status).toBe(0);
  expect(stdout).toMatch(/^INVALID_OPTION .*run `npm install @opentelemetry\/api`/);
});
