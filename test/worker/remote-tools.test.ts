// Holds what the executor of remote tools does with a worker: a real one over HTTP, and stubs that answer what no worker should.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { any, askUser, complete, createRuntime, defineWorkflow, isError, waitEvent } from "../../src/index.ts";
import {
  combineTools,
  localTools,
  type ListingExecutor,
  toolCall,
  type ToolResult,
  withApproval,
} from "../../src/integrations/tools/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { faultyStore, testClock } from "../../src/testing/index.ts";
import { remoteTools, serveToolWorker, toolCallback } from "../../src/worker/index.ts";
import { sign } from "../../src/worker/signature.ts";
import { eventually } from "../eventually.ts";
import { asker, type Asker, asking, call, look } from "./asker.ts";
import { freePort } from "../free-port.ts";
import { type Asked, type Said, stub } from "./tool-stub.ts";

const token = "a-token-that-is-in-no-record";

/** A worker with a tool that ends when the test says so, one that adds at once, and one that never ends. */
async function worker(options: Partial<Parameters<typeof serveToolWorker>[0]> = {}) {
  const gate = Promise.withResolvers<string>();
  const seen: string[] = [];
  const aborted: unknown[] = [];
  const served = await serveToolWorker({
    tools: {
      add: {
        run: ({ a, b }: { a: number; b: number }) => {
          seen.push("add");
          return a + b;
        },
      },
      gated: {
        run: () => {
          seen.push("gated");
          return gate.promise;
        },
      },
      endless: {
        run: (_: unknown, { signal }) =>
          new Promise((_, reject) => {
            seen.push("endless");
            signal.addEventListener("abort", () => {
              aborted.push(signal.reason);
              reject(signal.reason);
            });
          }),
      },
    },
    token,
    store: memoryStore(),
    ...options,
  });
  return Object.assign(served, { gate, seen, aborted });
}

async function jobAt(url: string, { waits }: { waits: readonly { details?: unknown }[] }): Promise<{ status: string }> {
  const { jobId } = (waits[0] as { details: unknown }).details as { jobId: string };
  const response = await fetch(`${url}/v1/tool_jobs/${jobId}`, { headers: { authorization: `Bearer ${token}` } });
  return (await response.json()) as { status: string };
}

test("a run is parked with reason job while the worker works, nothing executes meanwhile, and the result comes with a look", async () => {
  await using tools = await worker();
  await using asks = await asker({ url: tools.url, token });
  const { runtime, clock, store } = asks;
  const parked = await runtime.run(asking, { runId: "asks", vars: { calls: [call("gated")] } });
  expect(parked).toMatchObject({ status: "waiting", waits: [{ reason: "job", details: { kind: "tool_job", looks: 1 } }] });
  expect(parked.wakeAt).toBe(clock.now() + 1_000);
  const { runs } = await store.query({ status: "waiting", waitReason: "job" });
  expect(runs.map(({ runId, holder }) => ({ runId, holder }))).toEqual([{ runId: "asks", holder: undefined }]);
  expect((await runtime.health()).executing).toEqual([]);
  expect((await store.load("asks"))?.lease).toBeUndefined();
  await eventually(() => tools.seen.length === 1);
  expect(await jobAt(tools.url, parked)).toMatchObject({ status: "running" });

  // Looks grow further apart.
  const waitedMs: number[] = [];
  for (let i = 0; i < 8; i++) {
    const { wakeAt } = await look(asks);
    waitedMs.push((wakeAt as number) - clock.now());
  }
  expect(waitedMs).toEqual([2_000, 5_000, 10_000, 30_000, 60_000, 60_000, 60_000, 60_000]);
  tools.gate.resolve("done");
  await eventually(async () => (await jobAt(tools.url, await runtime.get("asks"))).status === "completed");
  const ended = await look(asks);
  expect(ended).toMatchObject({
    status: "completed",
    output: [{ name: "gated", callId: "c1", success: true, output: "done", error: null }],
  });
  expect(tools.seen).toEqual(["gated"]);
  expect((await runtime.verify("asks")).problems).toEqual([]);
});

test("calls of one batch are jobs of their own, and what fails there is a result", async () => {
  await using tools = await worker();
  await using asks = await asker({ url: tools.url, token });
  const calls = [call("add", { a: 1, b: 2 }, "c1"), call("missing", {}, "c2"), call("add", { a: 3, b: 4 }, "c3")];
  const { status } = await asks.runtime.run(asking, { runId: "asks", vars: { calls } });
  expect(status).toBe("waiting");
  const output = (await eventually(async () => (await look(asks)).output)) as unknown as ToolResult[];
  expect(output.map(({ callId, success, output, error }) => ({ callId, success, output, code: error?.code }))).toEqual([
    { callId: "c1", success: true, output: 3, code: undefined },
    { callId: "c2", success: false, output: null, code: "TOOL_UNKNOWN" },
    { callId: "c3", success: true, output: 7, code: undefined },
  ]);
});

test.each([
  [{ tools: "add" }],
  [[]],
  [{ tools: [null] }],
  [{ tools: [{ name: "add", parameters: [] }] }],
  // It would be the run that fails, when a model is told.
  [{ tools: [{ name: "add", description: 5, parameters: {} }] }],
])("a list of tools that is none is refused: %j", async (body) => {
  await using server = await stub(() => ({ body }));
  await expect(remoteTools({ url: server.url, token }).tools()).rejects.toMatchObject({ code: "TOOL_WORKER_INVALID" });
});

test("the worker tells what tools it has; tools that are given are told instead", async () => {
  await using tools = await worker();
  const named = async (options: object): Promise<string[]> => {
    const told = await remoteTools({ url: tools.url, token, ...options }).tools?.();
    return (told ?? []).map(({ name }) => name);
  };
  expect(await named({})).toEqual(["add", "gated", "endless"]);
  expect(await named({ tools: [{ name: "other", parameters: {} }] })).toEqual(["other"]);
  await expect(named({ token: "wrong" })).rejects.toMatchObject({ code: "TOOL_WORKER_REFUSED" });
});

describe("callbacks", () => {
  const secret = "the secret of callbacks";

  /** A worker, an asker whose clock never moves, and the host's HTTP server, which hands callbacks over. */
  async function withCallbacks(change: (request: Request) => Request = (request) => request) {
    const answers: number[] = [];
    const bodies: { headers: Record<string, string>; body: string }[] = [];
    let handle: (request: Request) => Promise<Response> = async () => new Response(null, { status: 503 });
    const host = await stub(async ({ headers, body }) => {
      const request = new Request("http://host/callback", { method: "POST", headers: headers as Record<string, string>, body });
      bodies.push({ headers: headers as Record<string, string>, body });
      const response = await handle(change(request));
      answers.push(response.status);
      return { status: response.status };
    });
    const callbackUrl = `${host.url}/callback`;
    const tools = await worker({ callbacks: { allow: [callbackUrl], secret } });
    const asks = await asker({ url: tools.url, token, callbackUrl }, { scheduler: true });
    handle = toolCallback(asks.runtime, { secret });
    return {
      tools,
      asks,
      host,
      answers,
      bodies,
      handle: (request: Request) => handle(request),
      async [Symbol.asyncDispose]() {
        await asks[Symbol.asyncDispose]();
        await tools.close();
        await host[Symbol.asyncDispose]();
      },
    };
  }

  test("wake the run at once: its clock stands still, so no look was due", async () => {
    await using world = await withCallbacks();
    const { tools, asks, answers } = world;
    const start = asks.clock.now();
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("gated")] } });
    tools.gate.resolve("done");
    await eventually(() => answers.includes(200));
    // The scheduler is told; its next turn is a timer of no delay.
    const ended = await eventually(async () => {
      await asks.clock.advance(0);
      const run = await asks.runtime.get("asks");
      return run.status === "completed" && run;
    });
    expect(ended.output).toMatchObject([{ success: true, output: "done" }]);
    expect(asks.clock.now()).toBe(start);
  });

  test("the same callback again does nothing, and what is forged, changed or old is refused", async () => {
    await using world = await withCallbacks();
    const { tools, asks, answers, bodies, handle } = world;
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("gated")] } });
    tools.gate.resolve("done");
    await eventually(() => answers.includes(200));
    const { headers, body } = bodies.at(-1) as { headers: Record<string, string>; body: string };
    const send = (more: { headers?: Record<string, string>; body?: string; method?: string }): Promise<number> => {
      const { method = "POST" } = more;
      const request = new Request("http://host/", {
        method,
        headers: { ...headers, ...more.headers },
        ...(method === "POST" ? { body: more.body ?? body } : {}),
      });
      return handle(request).then(({ status }) => status);
    };
    expect([200, 409]).toContain(await send({}));
    await eventually(async () => {
      await asks.clock.advance(0);
      return (await asks.runtime.get("asks")).status === "completed";
    });
    const { seq } = await asks.runtime.get("asks");
    // The run has ended: there is nobody to be woken.
    expect(await send({})).toBe(200);
    expect((await asks.runtime.get("asks")).seq).toBe(seq);

    expect(await send({ body: body.replace("asks", "other") })).toBe(401);
    expect(await send({ headers: { "webhook-id": "another" } })).toBe(401);
    expect(await send({ headers: { "webhook-signature": "v1,AAAA" } })).toBe(401);
    expect(await send({ headers: { "webhook-signature": "" } })).toBe(401);
    const old = String(Number(headers["webhook-timestamp"]) - 301);
    expect(await send({ headers: { "webhook-timestamp": old } })).toBe(401);
    expect(await send({ headers: { "webhook-timestamp": "1e9" } })).toBe(401);
    expect(await send({ body: "x".repeat(70_000) })).toBe(413);
    expect(await send({ method: "GET" })).toBe(405);
    expect(tools.seen).toEqual(["gated"]);
  });

  test("answer no question of a person, whatever wait their job was submitted for", async () => {
    // Whoever has the worker's token can have it sign this, for any run of any host that it may call back.
    const question = defineWorkflow({
      id: "question",
      entry: "ask",
      nodes: { ask: () => askUser({ prompt: "Pay?" }, { nextNode: "pay" }), pay: () => complete({ paid: true }) },
    });
    await using runtime = await createRuntime({ store: memoryStore(), workflows: [question] });
    const { runId, waits } = await runtime.run(question);
    const body = JSON.stringify({ job_id: "j", run_id: runId, status: "completed", metadata: { wait_key: waits[0]?.waitKey } });
    const headers = sign(secret, "j", body, Date.now());
    const answer = await toolCallback(runtime, { secret })(new Request("http://host/", { method: "POST", headers, body }));
    expect(answer.status).toBe(400);
    expect((await runtime.get(runId)).status).toBe("waiting");
  });

  test("that come while the host stops are told to come again", async () => {
    const runtime = await createRuntime({ store: memoryStore() });
    await runtime.stop();
    const body = JSON.stringify({ job_id: "j", run_id: "r", status: "completed", metadata: { wait_key: "tool_job:k" } });
    const headers = sign(secret, "j", body, Date.now());
    const answer = await toolCallback(runtime, { secret })(new Request("http://host/", { method: "POST", headers, body }));
    expect(answer.status).toBe(503);
  });

  test("one that comes before the run waits is given again, soon", async () => {
    await using world = await withCallbacks();
    const { asks, answers } = world;
    // The job ends before its submission is answered, or not: it is woken either way, with a clock that stands still.
    await asks.runtime.start(asking, { runId: "asks", vars: { calls: [call("add", { a: 1, b: 1 })] } });
    await eventually(async () => {
      await asks.clock.advance(0);
      return (await asks.runtime.get("asks")).status === "completed";
    });
    expect(answers.filter((status) => status !== 200 && status !== 409)).toEqual([]);
  });

  test("a job whose callback cannot arrive is found by looking", async () => {
    await using tools = await worker({ callbacks: { allow: ["http://127.0.0.1"], secret } });
    const callbackUrl = `http://127.0.0.1:${await freePort()}/callback`;
    // Another port is another place.
    await using refused = await asker({ url: tools.url, token, callbackUrl });
    const run = await refused.runtime.run(asking, { runId: "asks", vars: { calls: [call("add", { a: 1, b: 1 })] } });
    expect(run.output).toMatchObject([{ success: false, error: { code: "TOOL_WORKER_REFUSED" } }]);
    expect(JSON.stringify(run.output)).toContain("TOOL_CALLBACK_REFUSED");

    await using allowing = await worker({ callbacks: { allow: [callbackUrl], secret } });
    await using asks = await asker({ url: allowing.url, token, callbackUrl });
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add", { a: 1, b: 1 })] } });
    const output = await eventually(async () => (await look(asks)).output);
    expect(output).toMatchObject([{ success: true, output: 2 }]);
  });
});

test("a worker that is away is tried again under the same key, and the tool is called once", async () => {
  const port = await freePort();
  await using asks = await asker({ url: `http://127.0.0.1:${port}`, token });
  const parked = await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add", { a: 1, b: 2 })] } });
  expect(parked.waits).toMatchObject([{ reason: "job", details: { jobId: null, looks: 1 } }]);
  expect(await look(asks)).toMatchObject({ status: "waiting", waits: [{ details: { jobId: null, looks: 2 } }] });
  await using tools = await worker({ port });
  // Now it is taken, and is looked for soon.
  const { waits, wakeAt } = await look(asks);
  expect(waits).toMatchObject([{ details: { jobId: expect.stringMatching(/^job_/), looks: 1 } }]);
  expect(wakeAt).toBe(asks.clock.now() + 1_000);
  expect(await eventually(async () => (await look(asks)).output)).toMatchObject([{ output: 3 }]);
  expect(tools.seen).toEqual(["add"]);
});

test("beside tools of this process, those of a worker that is away are waited for all the same", async () => {
  const port = await freePort();
  const beside = localTools({ near: { speculative: true, run: () => "here" } });
  await using asks = await asker(
    { url: `http://127.0.0.1:${port}`, token },
    { change: (remote) => combineTools(beside, remote) },
  );
  const calls = [call("near", {}, "n"), call("gated", {}, "g")];
  const parked = await asks.runtime.run("asking", { runId: "asks", vars: { calls } });
  expect(parked.waits).toMatchObject([{ reason: "job", details: { jobId: null } }]);
  await using tools = await worker({ port });
  expect(await look(asks)).toMatchObject({ waits: [{ details: { jobId: expect.any(String) } }] });
  // Away again, in the middle of the job.
  await tools.close({ drainMs: 1 });
  expect(await look(asks)).toMatchObject({ waits: [{ details: { jobId: expect.any(String), looks: 2 } }] });
});

test("beside tools of this process, a job whose tool its worker has lost may have been done", async () => {
  const clock = testClock();
  const store = memoryStore({ clock });
  const listed = [{ name: "pay", parameters: {} }];
  await using server = await stub(({ path }) => ({
    body: path === "/v1/tools" ? { tools: listed.splice(0) } : { job_id: "j", status: "running" },
  }));
  const change = (remote: ListingExecutor) => combineTools(localTools({ near: { run: () => "here" } }), remote);
  await using asks = await asker({ url: server.url, token }, { store, clock, change });
  expect((await asks.runtime.run("asking", { runId: "asks", vars: { calls: [call("pay")] } })).status).toBe("waiting");
  await using again = await asker({ url: server.url, token }, { store, clock, change });
  expect(await look(again)).toMatchObject({ output: [{ success: false, error: { code: "EFFECT_UNCERTAIN" } }] });
});

test("looks at a job cost no call of a budget", async () => {
  await using tools = await worker();
  await using asks = await asker({ url: tools.url, token });
  const vars = { calls: [call("gated")] };
  await asks.runtime.run("asking", { runId: "asks", vars, budget: { calls: 1 } });
  for (let i = 0; i < 3; i++) expect(await look(asks)).toMatchObject({ waits: [{ reason: "job" }] });
  tools.gate.resolve("done");
  expect(await eventually(async () => (await look(asks)).output)).toMatchObject([{ output: "done" }]);
});

test("a worker that never comes is given up when the call's time is over", async () => {
  await using asks = await asker({ url: `http://127.0.0.1:${await freePort()}`, token, timeoutMs: 4_000 });
  let run = await asks.runtime.run("asking", { runId: "asks", vars: { calls: [call("add")] } });
  while (run.status === "waiting") run = await look(asks);
  expect(asks.clock.now()).toBe(testClock().now() + 4_000);
  expect(run.output).toMatchObject([{ success: false, error: { code: "TOOL_WORKER_UNREACHABLE" } }]);
  // An answer may be what did not arrive.
  expect(JSON.stringify(run.output)).toContain("the tool may have been called");
});

test("a job that never ends is given up and cancelled at the worker", async () => {
  await using tools = await worker();
  await using asks = await asker({ url: tools.url, token, timeoutMs: 4_000 });
  let run = await asks.runtime.run("asking", { runId: "asks", vars: { calls: [call("endless")] } });
  await eventually(() => tools.seen.length === 1);
  while (run.status === "waiting") run = await look(asks);
  expect(run.output).toMatchObject([{ success: false, error: { code: "TOOL_JOB_TIMEOUT" } }]);
  await eventually(() => tools.aborted.length === 1);
});

test("a run that is cancelled cancels its job, whose tool is told", async () => {
  await using tools = await worker();
  await using asks = await asker({ url: tools.url, token });
  const parked = await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("endless")] } });
  await eventually(() => tools.seen.length === 1);
  await asks.runtime.cancel("asks");
  expect(await asks.runtime.tick("asks")).toMatchObject({ status: "cancelled" });
  await eventually(() => tools.aborted.length === 1);
  await eventually(async () => (await jobAt(tools.url, parked)).status === "cancelled");
});

test("a call that another member of its any has overtaken is cancelled at the worker", async () => {
  await using tools = await worker();
  await using asks = await asker({ url: tools.url, token });
  const racing = defineWorkflow({
    id: "racing",
    effects: [toolCall],
    entry: "race",
    nodes: {
      race: () => any([toolCall(call("endless")), waitEvent("go")], { resultKey: "first", nextNode: "done" }),
      done: ({ vars }) => complete(vars.first),
    },
  });
  const parked = await asks.runtime.run(racing, { runId: "asks" });
  await eventually(() => tools.seen.length === 1);
  await asks.runtime.signal("asks", "go", 1);
  expect(await asks.runtime.tick("asks")).toMatchObject({ status: "completed", output: { index: 1, result: 1 } });
  await eventually(() => tools.aborted.length === 1);
  await eventually(async () => (await jobAt(tools.url, parked)).status === "cancelled");
});

test("a call that a person allows is submitted then, and called off like any other", async () => {
  await using tools = await worker();
  const change = (remote: ListingExecutor): ListingExecutor => withApproval(remote, { needsApproval: () => true });
  await using asks = await asker({ url: tools.url, token }, { change });
  for (const [runId, calls] of [
    ["asks", [call("gated")]],
    ["cancelled", [call("endless")]],
  ] as const) {
    const asked = await asks.runtime.run("asking", { runId, vars: { calls } });
    expect(asked.waits).toMatchObject([{ reason: "user" }]);
    expect(tools.seen).not.toContain(calls[0].name);
    await asks.runtime.respond(runId, { decision: "allow" });
    expect((await asks.runtime.tick(runId)).waits).toMatchObject([{ reason: "job", details: { jobId: expect.any(String) } }]);
    await eventually(() => tools.seen.includes(calls[0].name));
  }
  await asks.runtime.cancel("cancelled");
  expect(await asks.runtime.tick("cancelled")).toMatchObject({ status: "cancelled" });
  await eventually(() => tools.aborted.length === 1);
  tools.gate.resolve("done");
  expect(await eventually(async () => (await look(asks)).output)).toMatchObject([
    { output: "done", approval: { decision: "allow" } },
  ]);
  expect(tools.seen).toEqual(["gated", "endless"]);
});

test("a cancel while the job is being submitted cancels it, too", async () => {
  const submitted = Promise.withResolvers<void>();
  const cancelled = Promise.withResolvers<void>();
  await using server = await stub(async ({ method }) => {
    if (method !== "POST") return { body: { job_id: "j", status: "cancelled" } };
    submitted.resolve();
    await cancelled.promise;
    return { status: 202, body: { job_id: "j" } };
  });
  await using asks = await asker({ url: server.url, token });
  await asks.runtime.start(asking, { runId: "asks", vars: { calls: [call("add")] } });
  const driven = asks.runtime.tick("asks");
  await submitted.promise;
  await asks.runtime.cancel("asks");
  cancelled.resolve();
  expect(await driven).toMatchObject({ status: "cancelled" });
  expect(server.asked.map(({ method, path }) => `${method} ${path}`)).toEqual(["POST /v1/tool_jobs", "DELETE /v1/tool_jobs/j"]);
});

test("the trace of the attempt goes along with the job", async () => {
  await using server = await stub(() => ({ body: { job_id: "j" } }));
  const context = { waited: undefined, cancelled: false, runId: "r", idempotencyKey: "k", clock: testClock() };
  const signal = new AbortController().signal;
  const traceHeaders = (): Record<string, string> => ({ traceparent: "00-1-2-01", authorization: "not this one" });
  const executor = remoteTools({ url: server.url, token });
  await executor.execute(call("add"), { ...context, signal, traceHeaders } as never);
  expect(server.asked[0]?.headers).toMatchObject({ traceparent: "00-1-2-01", authorization: `Bearer ${token}` });
});

test("a host that is restarted while the worker works asks on, and no secret is in its store", async () => {
  const directory = mkdtempSync(join(tmpdir(), "remote-tools-"));
  try {
    await using tools = await worker();
    const clock = testClock();
    const open = async (): Promise<Asker> =>
      asker({ url: tools.url, token }, { store: await sqliteStore(join(directory, "runs.db"), { clock }), clock });
    await using first = await open();
    await first.runtime.run(asking, { runId: "asks", vars: { calls: [call("gated")] } });
    await first.runtime.stop();
    tools.gate.resolve("done");
    await using second = await open();
    expect(await eventually(async () => (await look(second)).output)).toMatchObject([{ success: true, output: "done" }]);
    expect(tools.seen).toEqual(["gated"]);
    await second.runtime.stop();
    const files = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isFile());
    expect(files).not.toEqual([]);
    for (const { name } of files) expect(readFileSync(join(directory, name)).includes(token)).toBe(false);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test.each([
  ["before", false],
  ["after", true],
])("a host that dies at any call of its store, %s it, and is started again has the tool called once", async (_, after) => {
  await using tools = await worker();
  const directory = mkdtempSync(join(tmpdir(), "remote-tools-"));
  try {
    let struck = true;
    for (let nth = 1; struck; nth++) {
      tools.seen.length = 0;
      const clock = testClock();
      const path = join(directory, `${nth}.db`);
      const vars = { calls: [call("add", { a: 1, b: 2 })] };
      /** Time goes on for what waits for it: another try, the end of a stop. */
      const inTime = async <T>(work: Promise<T>): Promise<T> => {
        let isOver = false;
        const over = (): void => {
          isOver = true;
        };
        work.then(over, over);
        while (!isOver) await clock.advance(100);
        return work;
      };
      const toTheEnd = async (asks: Asker): Promise<unknown> => {
        await asks.runtime.start(asking, { runId: "asks", vars });
        await asks.runtime.tick("asks");
        return eventually(async () => (await look(asks)).output);
      };
      const inner = await sqliteStore(path, { clock });
      const store = faultyStore(inner, [{ kind: "fail", fromCall: nth, after }]);
      // What it is told of the store does not matter: its process is about to be gone.
      const first = await asker({ url: tools.url, token }, { store, clock }).catch(() => undefined);
      await inTime(first ? toTheEnd(first) : Promise.resolve()).catch(() => undefined);
      await inTime(first?.runtime.stop() ?? Promise.resolve());
      await inner.close();
      struck = store.calls.length >= nth;
      // Until the lease of the dead has run out.
      await clock.advance(31_000);
      await using second = await asker({ url: tools.url, token }, { store: await sqliteStore(path, { clock }), clock });
      expect({ nth, output: await inTime(toTheEnd(second)) }).toMatchObject({ output: [{ success: true, output: 3 }] });
      expect({ nth, seen: tools.seen }).toEqual({ nth, seen: ["add"] });
      if (!struck) expect(nth).toBeGreaterThan(8);
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

describe("a worker that answers what no worker should", () => {
  const job = (more: object = {}): Said => ({ body: { job_id: "j", run_id: "asks", status: "completed", ...more } });
  const done = { name: "add", call_id: "c1", success: true, output: 3, error: null };
  const results = (...given: unknown[]): Said => job({ result: { mode: "executed", results: given } });
  const elsewhere: Asked[] = [];

  const cases: [name: string, submitted: Said, asked: Said, code: string][] = [
    ["is right", { status: 202, body: { job_id: "j" } }, results(done), ""],
    ["has a result with the token in it", { body: { job_id: "j" } }, results({ ...done, output: { at: [`${token}!`] } }), ""],
    ["tells what is no JSON", { status: 202, body: "<html>" }, {}, "TOOL_WORKER_INVALID"],
    ["tells of no job", { status: 202, body: {} }, {}, "TOOL_WORKER_INVALID"],
    ["says no JSON when it is asked", { body: { job_id: "j" } }, { body: "}" }, "TOOL_WORKER_INVALID"],
    ["tells of another job", { body: { job_id: "j" } }, { body: { job_id: "k", status: "running" } }, "TOOL_WORKER_INVALID"],
    ["tells of no status", { body: { job_id: "j" } }, { body: { job_id: "j", status: "?" } }, "TOOL_WORKER_INVALID"],
    ["has no results", { body: { job_id: "j" } }, job(), "TOOL_WORKER_INVALID"],
    ["has no result", { body: { job_id: "j" } }, results(), "TOOL_WORKER_INVALID"],
    ["has the result of another call", { body: { job_id: "j" } }, results({ ...done, call_id: "c2" }), "TOOL_WORKER_INVALID"],
    ["has two results", { body: { job_id: "j" } }, results(done, done), "TOOL_WORKER_INVALID"],
    ["has a result that is none", { body: { job_id: "j" } }, results("3"), "TOOL_WORKER_INVALID"],
    ["answers too much", { body: { job_id: "j" } }, { body: "x".repeat(200_000) }, "TOOL_WORKER_INVALID"],
    [
      "does not know the token",
      { status: 401, body: { error: { code: "X", message: `no ${token}` } } },
      {},
      "TOOL_WORKER_REFUSED",
    ],
    [
      "has the token in what it calls the error",
      { status: 400, body: { error: { code: `no-${token}`, message: "" } } },
      {},
      "TOOL_WORKER_REFUSED",
    ],
    ["has the token as a name", { body: { job_id: "j" } }, results({ ...done, output: { [`is ${token}`]: 1 } }), ""],
    ["gives a job a name that cannot be asked for", { body: '{"job_id":"\\ud800"}' }, {}, "TOOL_WORKER_INVALID"],
    ["refuses the request", { status: 400, body: "no" }, {}, "TOOL_WORKER_REFUSED"],
    ["loses the job", { body: { job_id: "j" } }, { status: 404 }, "TOOL_JOB_LOST"],
    ["has purged the job", { body: { job_id: "j" } }, { status: 410 }, "TOOL_JOB_LOST"],
    ["has cancelled the job", { body: { job_id: "j" } }, { body: { job_id: "j", status: "cancelled" } }, "TOOL_JOB_FAILED"],
    [
      "has failed the job",
      { body: { job_id: "j" } },
      { body: { job_id: "j", status: "failed", error: { code: "ODD", message: `with ${token}` } } },
      "TOOL_JOB_FAILED",
    ],
  ];

  test.each(cases)("%s", async (_, submitted, asked, code) => {
    await using server = await stub(({ method }) => (method === "POST" ? submitted : asked));
    await using asks = await asker({ url: server.url, token: async () => token, maxResponseBytes: 100_000 });
    let run = await asks.runtime.run("asking", { runId: "asks", vars: { calls: [call("add")] } });
    if (run.status === "waiting") run = await look(asks);
    expect(run.status).toBe("completed");
    const [result] = run.output as unknown as ToolResult[];
    expect(result).toMatchObject(code === "" ? { success: true } : { success: false, error: { code } });
    expect(JSON.stringify(await asks.runtime.ledger("asks"))).not.toContain(token);
    // It is never submitted twice.
    expect(server.asked.filter(({ method }) => method === "POST")).toHaveLength(1);
    expect(server.asked[0]?.headers).toMatchObject({ authorization: `Bearer ${token}`, "idempotency-key": expect.any(String) });
  });

  test.each([
    [
      { status: "completed", result: { mode: "executed", results: [{ call_id: "c1", success: true, output: 3, error: null }] } },
      3,
    ],
    [
      { status: "completed", run_id: null, result: { results: [{ call_id: "c1", success: false, error: "no file" }] } },
      "no file",
    ],
    [{ status: "failed", error: "no memory" }, expect.stringContaining("failed: no memory")],
  ])("says no more than AbstractRuntime's contract asks for, in texts: %j", async (body, comesTo) => {
    await using server = await stub(({ method }) => ({ body: method === "POST" ? { job_id: "j" } : body }));
    await using asks = await asker({ url: server.url, token });
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add")] } });
    const [result] = (await look(asks)).output as unknown as ToolResult[];
    expect(result).toMatchObject({ name: "add", callId: "c1" });
    expect(result?.output ?? result?.error?.message).toEqual(comesTo);
  });

  test("has what a short token says by chance in its result, which stays as it is", async () => {
    await using server = await stub(({ method }) => (method === "POST" ? { body: { job_id: "j" } } : results(done)));
    await using asks = await asker({ url: server.url, token: "s" });
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add")] } });
    expect(await look(asks)).toMatchObject({ output: [{ success: true, output: 3 }] });
  });

  test("has a message that is cut in the middle of the token", async () => {
    const message = "x".repeat(500 - token.length / 2) + token;
    await using server = await stub(() => ({ status: 400, body: { error: { message } } }));
    await using asks = await asker({ url: server.url, token });
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add")] } });
    expect(JSON.stringify(await asks.runtime.ledger("asks"))).not.toContain(token.slice(0, 8));
  });

  test.each([401, 403])("does not know the token for a while (%i), after it took the job: it is asked again", async (status) => {
    const says: Said[] = [{ status }, results(done)];
    await using server = await stub(({ method }) => (method === "POST" ? { body: { job_id: "j" } } : (says.shift() ?? {})));
    await using asks = await asker({ url: server.url, token });
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add")] } });
    expect((await look(asks)).status).toBe("waiting");
    expect((await look(asks)).output).toMatchObject([{ success: true, output: 3 }]);
  });

  test("refuses a submission after one that was cut off: whoever reads it knows that the tool may have been called", async () => {
    const says: Said[] = [{ status: 502 }, { status: 401 }];
    await using server = await stub(() => says.shift() ?? {});
    await using asks = await asker({ url: server.url, token });
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add")] } });
    const { output } = await look(asks);
    expect(output).toMatchObject([{ error: { code: "TOOL_WORKER_REFUSED" } }]);
    expect(JSON.stringify(output)).toContain("the tool may have been called");
  });

  test("redirects: it is not followed, and the other server sees neither request nor token", async () => {
    await using other = await stub((one) => {
      elsewhere.push(one);
      return { body: { job_id: "j" } };
    });
    await using server = await stub(() => ({ status: 307, headers: { location: `${other.url}/v1/tool_jobs` } }));
    await using asks = await asker({ url: server.url, token });
    const { output } = await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add")] } });
    expect(output).toMatchObject([{ success: false, error: { code: "TOOL_WORKER_INVALID" } }]);
    expect(elsewhere).toEqual([]);
  });

  test("is too slow, busy or broken: it is asked again later, and says itself when", async () => {
    const says: Said[] = [
      { never: true },
      { status: 503, headers: { "retry-after": "90" } },
      { status: 502, body: "<html>" },
      { status: 429, headers: { "retry-after": "1e12" } },
      { status: 404, body: "<html>nobody here</html>" },
    ];
    let first = true;
    await using server = await stub(({ method }) => {
      if (method === "POST" && first) {
        first = false;
        return { body: { job_id: "j" } };
      }
      return says.shift() ?? results(done);
    });
    // Only what is never answered may take too long, however busy the machine is.
    const fetchPatiently: typeof fetch = (url, init) =>
      fetch(url, init?.method === "GET" && says[0]?.never ? init : { ...init, signal: null });
    const limits = { requestTimeoutMs: 50, timeoutMs: Number.POSITIVE_INFINITY };
    await using asks = await asker({ url: server.url, token, ...limits, fetch: fetchPatiently });
    await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add")] } });
    const waitedMs: number[] = [];
    let run = await look(asks);
    for (; run.status === "waiting"; run = await look(asks)) waitedMs.push((run.wakeAt as number) - asks.clock.now());
    expect(waitedMs).toEqual([2_000, 90_000, 10_000, 3_600_000, 60_000]);
    expect(run.output).toMatchObject([{ success: true, output: 3 }]);
  });
});

test.each([
  [{ url: "ftp://host" }, "url"],
  [{ url: "not an address" }, "url"],
  [{ url: "http://tools.example.com" }, "url"],
  [{ url: "https://me:hidden@tools.example.com" }, "url"],
  [{ token: "" }, "token"],
  [{ pollMs: [] }, "pollMs"],
  [{ pollMs: 0 }, "pollMs"],
  [{ timeoutMs: Number.NaN }, "timeoutMs"],
  [{ callbackUrl: "nowhere" }, "callbackUrl"],
  [{ tokens: "x" }, "tokens"],
])("options are checked: %j", (wrong, option) => {
  const make = (): unknown => remoteTools({ url: "https://tools.example.com", token, ...wrong });
  expect(make).toThrow(expect.objectContaining({ code: "INVALID_OPTION", fields: expect.objectContaining({ option }) }));
  try {
    make();
  } catch (error) {
    expect(isError(error) && error.message).not.toContain("hidden");
  }
});

test.each(["", "two\nlines of a secret\n", "a secret \u{1f511}"])(
  "a token that no header can hold (%j) is told at once, and not shown",
  async (wrong) => {
    expect(() => remoteTools({ url: "http://127.0.0.1:1", token: wrong })).toThrow(
      expect.objectContaining({ code: "INVALID_OPTION" }),
    );
    await using server = await stub(() => ({}));
    await using asks = await asker({ url: server.url, token: () => wrong });
    const run = await asks.runtime.run(asking, { runId: "asks", vars: { calls: [call("add")] } });
    expect(run.output).toMatchObject([{ success: false, error: { code: "TOOL_WORKER_REFUSED" } }]);
    expect(JSON.stringify(await asks.runtime.ledger("asks"))).not.toMatch(/secret|lines/);
    expect(server.asked).toEqual([]);
  },
);

test("plain HTTP goes to this machine, and elsewhere only where that is said", () => {
  for (const url of ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"]) remoteTools({ url, token });
  remoteTools({ url: "http://tools.example.com", token, insecure: true });
});
