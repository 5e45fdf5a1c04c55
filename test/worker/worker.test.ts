// Holds the worker's HTTP contract, by requests to a listening port: jobs, keys, tokens, limits, cancels, callbacks, restarts.
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createRuntime, type Instrument, type Logger, type Traced } from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { testClock } from "../../src/testing/index.ts";
import { serveToolWorker, type ToolWorkerOptions } from "../../src/worker/index.ts";
import { eventually } from "../eventually.ts";
import { type Said, stub } from "./tool-stub.ts";

const token = "the-right-token";
const workers = new Set<{ close(): Promise<void> }>();
afterEach(async () => {
  for (const worker of workers) await worker.close();
  workers.clear();
});

interface Answer {
  status: number;
  headers: Headers;
  body: any;
}

/** A worker with tools that say when they are called; `held` ends when it is told to. */
async function worker(options: Partial<ToolWorkerOptions> = {}) {
  const gate = Promise.withResolvers<string>();
  const seen: string[] = [];
  const aborted: string[] = [];
  let atOnce = 0;
  let mostAtOnce = 0;
  const held = async ({ id = "" }: { id?: string }, { signal }: { signal: AbortSignal }): Promise<string> => {
    seen.push(id);
    mostAtOnce = Math.max(mostAtOnce, ++atOnce);
    const cut = Promise.withResolvers<never>();
    signal.addEventListener("abort", () => {
      aborted.push(id);
      cut.reject(signal.reason);
    });
    return Promise.race([gate.promise, cut.promise]).finally(() => {
      atOnce -= 1;
    });
  };
  const served = await serveToolWorker({
    tools: {
      echo: {
        run: (given: unknown) => {
          seen.push("echo");
          return given;
        },
      },
      held: { run: held, timeoutMs: 2 ** 31 - 1 },
      big: { run: () => "x".repeat(300_000) },
    },
    token,
    store: memoryStore(),
    ...options,
  });
  workers.add({
    close: () => {
      // On a clock that stands still, the time to finish never ends.
      gate.resolve("the test is over");
      return served.close();
    },
  });
  const ask = async (
    method: string,
    path: string,
    more: { body?: unknown; key?: string; token?: string } = {},
  ): Promise<Answer> => {
    const headers = new Headers({ authorization: `Bearer ${more.token ?? token}` });
    if (more.key !== undefined) headers.set("idempotency-key", more.key);
    const body = typeof more.body === "string" ? more.body : JSON.stringify(more.body);
    const response = await fetch(`${served.url}${path}`, { method, headers, ...(body === undefined ? {} : { body }) });
    return { status: response.status, headers: response.headers, body: await response.json() };
  };
  const submit = (calls: unknown, key?: string, more: object = {}): Promise<Answer> =>
    ask("POST", "/v1/tool_jobs", { body: { run_id: "r", tool_calls: calls, ...more }, ...(key === undefined ? {} : { key }) });
  const get = (jobId: string): Promise<Answer> => ask("GET", `/v1/tool_jobs/${jobId}`);
  const ended = (jobId: string): Promise<Answer["body"]> =>
    eventually(async () => {
      const { body } = await get(jobId);
      return ["completed", "failed", "cancelled"].includes(body.status) && body;
    });
  return { served, gate, seen, aborted, ask, submit, get, ended, mostAtOnce: () => mostAtOnce };
}

const echo = (given: unknown, callId = "c"): object => ({ name: "echo", call_id: callId, arguments: given });
const held = (id: string): object => ({ name: "held", call_id: id, arguments: { id } });

test("a job is taken with 202, carried out, and told with a result for each call, in their order", async () => {
  const { submit, ended } = await worker();
  const { status, body } = await submit([echo({ a: [1, null] }, "x"), { name: "nothing" }, echo({}, "z")]);
  expect(status).toBe(202);
  expect(body).toMatchObject({
    job_id: expect.stringMatching(/^job_/),
    run_id: "r",
    status: expect.stringMatching(/pending|running/),
  });
  expect(await ended(body.job_id)).toEqual({
    job_id: body.job_id,
    run_id: "r",
    status: "completed",
    result: {
      mode: "executed",
      results: [
        { name: "echo", call_id: "x", success: true, output: { a: [1, null] }, error: null },
        {
          name: "nothing",
          call_id: "call_2",
          success: false,
          output: null,
          error: { code: "TOOL_UNKNOWN", message: expect.any(String) },
        },
        { name: "echo", call_id: "z", success: true, output: {}, error: null },
      ],
    },
  });
});

test("a key stands for one request: the same again is the same job, another one is refused", async () => {
  const { submit, ended, seen } = await worker();
  const [first, second] = await Promise.all([submit([echo({ n: 1 })], "key"), submit([echo({ n: 1 })], "key")]);
  expect([first.status, second.status]).toEqual([202, 202]);
  expect(second.body.job_id).toBe(first.body.job_id);
  await ended(first.body.job_id);
  expect((await submit([echo({ n: 1 })], "key")).body).toMatchObject({ job_id: first.body.job_id, status: "completed" });
  expect(seen).toEqual(["echo"]);
  const other = await submit([echo({ n: 2 })], "key");
  expect(other).toMatchObject({ status: 409, body: { error: { code: "TOOL_JOB_CONFLICT" } } });
  expect((await submit([echo({ n: 1 })], "key", { metadata: { wait_key: "w" } })).status).toBe(409);
  expect(await submit([echo({ n: 1 })], "")).toMatchObject({ status: 400, body: { error: { code: "TOOL_JOB_INVALID" } } });
  // Without a key, each request is a job.
  const [one, two] = [await submit([echo({ n: 1 })]), await submit([echo({ n: 1 })])];
  expect(one.body.job_id).not.toBe(two.body.job_id);
});

test("what a client leaves out may also be null", async () => {
  const { submit, ended } = await worker();
  const calls = [{ name: "echo", call_id: null, arguments: null }];
  const { status, body } = await submit(calls, undefined, { metadata: null, callback_url: null });
  expect(status).toBe(202);
  expect((await ended(body.job_id)).result.results).toMatchObject([{ call_id: "call_1", success: true, output: {} }]);
});

test("nobody gets in without the token, and nobody is told why", async () => {
  const { ask, served, seen } = await worker({ token: ["older", token] });
  const routes = [
    ["POST", "/v1/tool_jobs"],
    ["GET", "/v1/tool_jobs/x"],
    ["DELETE", "/v1/tool_jobs/x"],
    ["POST", "/v1/tool_jobs/x/cancel"],
    ["GET", "/v1/tools"],
    ["GET", "/anything"],
  ] as const;
  const said = new Set<string>();
  for (const [method, path] of routes) {
    for (const authorization of [
      undefined,
      "",
      "Bearer",
      "Bearer ",
      `Basic ${token}`,
      token,
      "Bearer wrong",
      `Bearer ${token}x`,
    ]) {
      const headers = authorization === undefined ? {} : { authorization };
      const response = await fetch(`${served.url}${path}`, { method, headers });
      expect({ path, authorization, status: response.status }).toEqual({ path, authorization, status: 401 });
      said.add(await response.text());
    }
  }
  expect([...said]).toEqual([JSON.stringify({ error: { code: "TOOL_WORKER_REFUSED", message: "unauthorized" } })]);
  expect(seen).toEqual([]);
  for (const known of ["older", token]) expect((await ask("GET", "/v1/tools", { token: known })).status).toBe(200);
});

test.each([
  ["", 400, "TOOL_JOB_INVALID"],
  ["not json", 400, "TOOL_JOB_INVALID"],
  ["[]", 400, "TOOL_JOB_INVALID"],
  [{}, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "", tool_calls: [{ name: "echo" }] }, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r" }, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r", tool_calls: {} }, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r", tool_calls: [] }, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r", tool_calls: ["echo"] }, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r", tool_calls: [{ name: 5 }] }, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r", tool_calls: [{ name: "echo", call_id: "" }] }, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r", tool_calls: [{ name: "echo" }], metadata: [] }, 400, "TOOL_JOB_INVALID"],
  // Half a character: nothing that takes UTF-8 would take it as it is.
  ['{"run_id":"\\ud800","tool_calls":[{"name":"echo"}]}', 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r", tool_calls: [{ name: "echo" }], callback_url: 5 }, 400, "TOOL_JOB_INVALID"],
  [{ run_id: "r", tool_calls: [{ name: "echo" }], callback_url: "http://127.0.0.1/x" }, 400, "TOOL_CALLBACK_REFUSED"],
  [{ run_id: "r", tool_calls: Array.from({ length: 4 }, () => ({ name: "echo" })) }, 413, "TOOL_JOB_LIMIT"],
  [{ run_id: "r", tool_calls: [{ name: "echo", arguments: "x".repeat(2_000) }] }, 413, "TOOL_JOB_LIMIT"],
  [`{"run_id":"r","tool_calls":[{"name":"echo","arguments":${"[".repeat(300)}${"]".repeat(300)}}]}`, 400, "JSON_TOO_DEEP"],
  [{ run_id: "r", tool_calls: [{ name: "echo", arguments: { a: { $artifact: "a".repeat(64) } } }] }, 400, "ARTIFACT_MISSING"],
  ['{"run_id":"r","tool_calls":[{"name":"echo","arguments":{"__proto__":{"a":1}}}]}', 400, "NOT_JSON"],
])("a request that cannot be taken is refused: %j", async (body, status, code) => {
  const { ask, seen } = await worker({ limits: { calls: 3, bodyBytes: 1_500 } });
  const answer = await ask("POST", "/v1/tool_jobs", { body });
  expect(answer).toMatchObject({ status, body: { error: { code } } });
  expect(answer.body.error.message).not.toBe("");
  expect(seen).toEqual([]);
});

test("a body that is no UTF-8 is refused: no tool is called with other arguments than were meant", async () => {
  const { served, seen } = await worker();
  const [before, after] = ['{"run_id":"r","tool_calls":[{"name":"echo","arguments":{"path":"', '"}}]}'];
  const body = Buffer.concat([Buffer.from(before), Buffer.from([0xff, 0xfe]), Buffer.from(after)]);
  const response = await fetch(`${served.url}/v1/tool_jobs`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
    body,
  });
  expect([response.status, await response.json()]).toMatchObject([400, { error: { code: "TOOL_JOB_INVALID" } }]);
  expect(seen).toEqual([]);
});

test("a body without a length is cut off at the limit", async () => {
  const { served } = await worker({ limits: { bodyBytes: 1_000 } });
  let sent = 0;
  const body = new ReadableStream({
    pull(controller) {
      sent += 1;
      if (sent > 10_000) return controller.close();
      controller.enqueue(new TextEncoder().encode("x".repeat(500)));
    },
  });
  const request = { method: "POST", headers: { authorization: `Bearer ${token}` }, body, duplex: "half" };
  // The worker may close before all was sent.
  const status = await fetch(`${served.url}/v1/tool_jobs`, request as RequestInit).then(
    (response) => response.body?.cancel().then(() => response.status),
    () => 413,
  );
  expect(status).toBe(413);
  expect(sent).toBeLessThan(10_000);
});

test("what nobody knows is not found", async () => {
  const { ask, get } = await worker();
  expect(await get("job_unknown")).toMatchObject({ status: 404, body: { error: { code: "TOOL_JOB_NOT_FOUND" } } });
  expect(await ask("DELETE", "/v1/tool_jobs/job_unknown")).toMatchObject({ status: 404 });
  for (const id of ["%E0%A4%A", "..%2f..", "x".repeat(5_000), "__proto__", "%00"]) expect((await get(id)).status).toBe(404);
  expect(await ask("GET", "/v1/other")).toMatchObject({ status: 404, body: { error: { code: "NOT_FOUND" } } });
});

test("jobs over the concurrency wait for their turn, and more than may wait are refused for now", async () => {
  const { submit, ended, gate, seen, get, mostAtOnce } = await worker({ limits: { concurrency: 2, jobs: 4 } });
  const jobs: string[] = [];
  for (let i = 0; i < 4; i++) jobs.push((await submit([held(`h${i}`)], `k${i}`)).body.job_id);
  await eventually(() => seen.length === 2);
  const statuses = await Promise.all(jobs.map(async (job) => (await get(job)).body.status));
  expect(statuses.toSorted()).toEqual(["pending", "pending", "running", "running"]);
  const refused = await submit([held("h5")], "k5");
  expect(refused).toMatchObject({ status: 429, body: { error: { code: "TOOL_JOB_LIMIT" } } });
  expect(refused.headers.get("retry-after")).toBe("5");
  // What was taken already is found all the same.
  expect(await submit([held("h0")], "k0")).toMatchObject({ status: 202, body: { job_id: jobs[0] } });
  gate.resolve("on");
  for (const job of jobs) expect(await ended(job)).toMatchObject({ status: "completed" });
  expect(mostAtOnce()).toBe(2);
});

test("of more jobs than may wait that come at the same moment, some are refused for now", async () => {
  const { submit, gate } = await worker({ limits: { jobs: 2 } });
  const answers = await Promise.all(Array.from({ length: 6 }, (_, i) => submit([held(`h${i}`)], `k${i}`)));
  const taken = answers.filter(({ status }) => status === 202);
  expect([1, 2]).toContain(taken.length);
  expect(answers.filter(({ status }) => status === 429)).toHaveLength(6 - taken.length);
  gate.resolve("on");
});

test("more jobs than a runtime drives otherwise are carried out at the same time where that is said", async () => {
  const { submit, gate, seen } = await worker({ limits: { concurrency: 101 } });
  await Promise.all(Array.from({ length: 101 }, (_, i) => submit([held(`h${i}`)])));
  await eventually(() => seen.length === 101);
  gate.resolve("on");
});

test("of results that are too large only that is told; others of the job are kept", async () => {
  const { submit, ended } = await worker({ limits: { resultBytes: 400_000 } });
  const { body } = await submit([
    echo({ n: 1 }, "a"),
    { name: "big", call_id: "b" },
    { name: "big", call_id: "c" },
    echo({ n: 2 }, "d"),
  ]);
  const { result } = await ended(body.job_id);
  expect(result.results.map((one: any) => [one.call_id, one.success, one.error?.code])).toEqual([
    ["a", true, undefined],
    ["b", true, undefined],
    ["c", false, "TOOL_JOB_LIMIT"],
    ["d", true, undefined],
  ]);
  expect(result.results[1].output).toHaveLength(300_000);
});

test("a job has its time, and then its tools are told to stop", async () => {
  const clock = testClock();
  const { submit, ended, seen, aborted } = await worker({ clock, store: memoryStore({ clock }), limits: { jobMs: 5_000 } });
  const { body } = await submit([held("slow")]);
  await eventually(async () => {
    await clock.advance(0);
    return seen.length === 1;
  });
  await clock.advance(5_000);
  await eventually(() => aborted.length === 1);
  expect(await ended(body.job_id)).toMatchObject({ status: "failed", error: { code: "TOOL_JOB_TIMEOUT" } });
});

test.each(["DELETE", "POST"] as const)(
  "%s cancels a job, whose tools are told; one that has ended stays as it is",
  async (method) => {
    const { submit, ask, ended, seen, aborted } = await worker();
    const { job_id: jobId } = (await submit([held("h")])).body;
    await eventually(() => seen.length === 1);
    const path = `/v1/tool_jobs/${jobId}${method === "POST" ? "/cancel" : ""}`;
    expect((await ask(method, path)).status).toBe(202);
    expect(await ended(jobId)).toMatchObject({ status: "cancelled", error: { message: expect.any(String) } });
    expect(aborted).toEqual(["h"]);
    expect(await ask(method, path)).toMatchObject({ status: 202, body: { status: "cancelled" } });

    const done = (await submit([echo({ n: 1 })])).body.job_id;
    await ended(done);
    expect(await ask(method, `/v1/tool_jobs/${done}`.concat(method === "POST" ? "/cancel" : ""))).toMatchObject({
      body: { status: "completed" },
    });
  },
);

test("a job that waits for its turn is cancelled without one", async () => {
  const { submit, ask, ended, seen } = await worker({ limits: { concurrency: 1 } });
  await submit([held("first")], "1");
  await eventually(() => seen.length === 1);
  const { job_id: jobId } = (await submit([held("second")], "2")).body;
  await ask("DELETE", `/v1/tool_jobs/${jobId}`);
  expect(await ended(jobId)).toMatchObject({ status: "cancelled" });
  expect(seen).toEqual(["first"]);
});

test("a job that nobody asks for is cancelled after a while; one that is asked for is not; ended ones are removed", async () => {
  const clock = testClock();
  const minute = 60_000;
  const { submit, get, ended, seen, aborted } = await worker({
    clock,
    store: memoryStore({ clock }),
    limits: { abandonAfterMs: 10 * minute, keepMs: 60 * minute, jobMs: 1_000 * minute },
  });
  const wanted = (await submit([held("wanted")], "w")).body.job_id;
  const left = (await submit([held("left")], "l")).body.job_id;
  await eventually(async () => {
    await clock.advance(0);
    return seen.length === 2;
  });
  for (let i = 0; i < 4; i++) {
    await clock.advance(4 * minute);
    expect((await get(wanted)).body.status).toBe("running");
  }
  await eventually(() => aborted.length === 1);
  expect(aborted).toEqual(["left"]);
  expect(await ended(left)).toMatchObject({ status: "cancelled", error: { message: "nobody asked for it any more" } });
  for (let i = 0; i < 20; i++) {
    await clock.advance(4 * minute);
    await get(wanted);
  }
  await eventually(async () => (await get(left)).status === 410);
  // Its key stays taken: it is not carried out again.
  expect(await submit([held("left")], "l")).toMatchObject({ status: 410, body: { error: { code: "TOOL_JOB_NOT_FOUND" } } });
  expect(seen).toEqual(["wanted", "left"]);
  expect((await get(wanted)).body.status).toBe("running");
});

test("a worker whose machine was asleep gives whoever was asleep with it time to ask", async () => {
  const time = testClock();
  const minute = 60_000;
  let asleep = 0;
  const clock = { now: () => time.now() + asleep, setTimer: time.setTimer.bind(time) };
  const { submit, get, seen, aborted } = await worker({
    clock,
    store: memoryStore({ clock }),
    limits: { abandonAfterMs: 10 * minute, jobMs: 1_000 * minute },
  });
  const jobId = (await submit([held("wanted")], "w")).body.job_id;
  await eventually(async () => {
    await time.advance(0);
    return seen.length === 1;
  });
  asleep = 120 * minute;
  await time.advance(2 * minute);
  expect((await get(jobId)).body.status).toBe("running");
  expect(aborted).toEqual([]);
});

test("of two workers over one store, one does not cancel what the other is asked for", async () => {
  const directory = mkdtempSync(join(tmpdir(), "tool-worker-"));
  try {
    const clock = testClock();
    const minute = 60_000;
    const limits = { abandonAfterMs: 10 * minute, jobMs: 1_000 * minute };
    const one = async () => worker({ clock, limits, store: await sqliteStore(join(directory, "jobs.db"), { clock }) });
    const [asked, other] = [await one(), await one()];
    // The other one is open for longer than a job may be left alone.
    await clock.advance(15 * minute);
    const jobId = (await asked.submit([held("wanted")], "w")).body.job_id;
    await eventually(async () => {
      await clock.advance(0);
      return asked.seen.length + other.seen.length === 1;
    });
    for (let i = 0; i < 6; i++) {
      await clock.advance(4 * minute);
      // Each of its looks for jobs that nobody asks for is over when it answers this.
      expect((await other.ask("GET", "/v1/tools")).status).toBe(200);
      expect((await asked.get(jobId)).body.status).toBe("running");
    }
    expect([...asked.aborted, ...other.aborted]).toEqual([]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test("over TLS, with a certificate of its own", async () => {
  const [cert, key] = ["cert", "key"].map((name) => readFileSync(join(import.meta.dirname, `fixtures/${name}.pem`), "utf8"));
  const { served } = await worker({ tls: { cert: cert as string, key: key as string } });
  expect(served.url).toMatch(/^https:/);
  const status = await new Promise((resolve, reject) => {
    const options = { ca: cert, agent: false, headers: { authorization: `Bearer ${token}` } };
    request(`${served.url}/v1/tools`, options, (response) => {
      response.resume().on("end", () => resolve(response.statusCode));
    })
      .on("error", reject)
      .end();
  });
  expect(status).toBe(200);
});

describe("callbacks", () => {
  const secret = "signs callbacks";

  async function withHost(answer: () => Said) {
    const host = await stub(answer);
    const world = await worker({ callbacks: { allow: [`${host.url}/hooks`], secret } });
    return { host, ...world, [Symbol.asyncDispose]: host[Symbol.asyncDispose] };
  }

  test("are signed, carry what was given along, and no result", async () => {
    await using world = await withHost(() => ({}));
    const { host, submit, ended } = world;
    const metadata = { wait_key: "w", any: [1] };
    const { job_id: jobId } = (await submit([echo({ n: 1 })], "k", { callback_url: `${host.url}/hooks/one?x=1`, metadata })).body;
    const got = await eventually(() => host.asked[0]);
    expect(got).toMatchObject({ method: "POST", path: "/hooks/one?x=1" });
    expect(JSON.parse(got.body)).toEqual({ job_id: jobId, run_id: "r", status: "completed", metadata });
    const timestamp = String(got.headers["webhook-timestamp"]);
    const signature = createHmac("sha256", secret).update(`${jobId}.${timestamp}.${got.body}`).digest("base64");
    expect(got.headers).toMatchObject({ "webhook-id": jobId, "webhook-signature": `v1,${signature}` });
    expect(Math.abs(Number(timestamp) * 1_000 - Date.now())).toBeLessThan(60_000);
    // Neither the token nor the secret goes along.
    expect(JSON.stringify(got)).not.toContain(token);
    expect(JSON.stringify(got)).not.toContain(secret);
    // When it arrives, whoever asks is told the same.
    expect((await ended(jobId)).status).toBe("completed");
  });

  test.each([
    ["http://127.0.0.1:1/hooks"],
    ["HOST/other"],
    ["HOST/hooksmore"],
    ["HOST/hooks/../other"],
    ["HOST/hooks/%2e%2e/other"],
    ["HOST/hooks/..;/other"],
    ["HOST/hooks/..%252fother"],
    ["HOST/hooks/..%2Fother"],
    ["HOST/hooks/..%5cother"],
    ["http://user:pass@127.0.0.1/hooks"],
    ["file:///etc/passwd"],
    ["http://169.254.169.254/latest"],
    ["//host"],
  ])("to %s are refused, and the rest of the address is not told", async (target) => {
    await using world = await withHost(() => ({}));
    const { host, submit, seen } = world;
    const answer = await submit([echo({ n: 1 })], "k", { callback_url: target.replace("HOST", host.url) });
    expect(answer).toMatchObject({ status: 400, body: { error: { code: "TOOL_CALLBACK_REFUSED" } } });
    expect(answer.body.error.message).not.toMatch(/pass|latest|etc/);
    expect(host.asked).toEqual([]);
    expect(seen).toEqual([]);
  });

  test("of a job that is submitted again go where the first submission said", async () => {
    await using world = await withHost(() => ({}));
    const { host, submit, ended, seen } = world;
    const metadata = { wait_key: "w" };
    // Its host was started again in between, with another address of its own, or with none.
    const first = await submit([echo({ n: 1 })], "k", { callback_url: `${host.url}/hooks/old`, metadata });
    const again = await submit([echo({ n: 1 })], "k", { callback_url: `${host.url}/hooks/new`, metadata });
    expect(again).toMatchObject({ status: 202, body: { job_id: first.body.job_id } });
    expect(await submit([echo({ n: 1 })], "k", { metadata })).toMatchObject({ status: 202 });
    await ended(first.body.job_id);
    expect((await eventually(() => host.asked[0])).path).toBe("/hooks/old");
    expect(seen).toEqual(["echo"]);
  });

  test("that nobody answers keep no job from its turn", async () => {
    const answer = Promise.withResolvers<Said>();
    await using host = await stub(() => answer.promise);
    const { submit, ended } = await worker({
      limits: { concurrency: 1 },
      callbacks: { allow: [host.url], secret: "the secret" },
    });
    await submit([echo({ n: 1 })], "k", { callback_url: host.url });
    await eventually(() => host.asked.length === 1);
    const { body } = await submit([echo({ n: 2 })]);
    expect(await ended(body.job_id)).toMatchObject({ status: "completed" });
    answer.resolve({});
  });

  test("do not follow redirects, and are tried again when the host is not ready", async () => {
    await using elsewhere = await stub(() => ({}));
    const says: Said[] = [{ status: 307, headers: { location: elsewhere.url } }, { status: 409 }, { status: 200 }];
    await using world = await withHost(() => says.shift() ?? { status: 500 });
    const { host, submit, ended } = world;
    const { job_id: jobId } = (await submit([echo({ n: 1 })], "k", { callback_url: `${host.url}/hooks` })).body;
    await eventually(() => host.asked.length === 3);
    expect(elsewhere.asked).toEqual([]);
    expect(new Set(host.asked.map(({ headers }) => headers["webhook-id"]))).toEqual(new Set([jobId]));
    expect((await ended(jobId)).status).toBe("completed");
  });
});

test("jobs survive the worker: one that is stopped lets calls finish, and the next goes on with what is left", async () => {
  const directory = mkdtempSync(join(tmpdir(), "tool-worker-"));
  try {
    const path = join(directory, "jobs.db");
    const first = await worker({ store: path, limits: { concurrency: 1 } });
    const one = (await first.submit([held("a")], "1")).body.job_id;
    const two = (await first.submit([held("b")], "2")).body.job_id;
    await eventually(() => first.seen.length === 1);
    const closed = first.served.close();
    first.gate.resolve("in time");
    await closed;
    expect(first.seen).toEqual(["a"]);
    await expect(first.get(one)).rejects.toThrow();

    const second = await worker({ store: path });
    expect(await second.ended(one)).toMatchObject({ status: "completed", result: { results: [{ output: "in time" }] } });
    second.gate.resolve("later");
    expect(await second.ended(two)).toMatchObject({ status: "completed", result: { results: [{ output: "later" }] } });
    expect(second.seen).toEqual(["b"]);
    await second.served.close();
    // Runs of others in the same store are none of its jobs.
    const store = await sqliteStore(path);
    expect((await store.query({ workflowId: "tool-job" })).runs).toHaveLength(2);
    await store.close();
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test("a job goes on in the trace of whoever submitted it", async () => {
  const directory = mkdtempSync(join(tmpdir(), "tool-worker-"));
  try {
    const path = join(directory, "jobs.db");
    const traced: Traced = { headers: () => ({}), within: (action) => action(), end: () => undefined };
    const telemetry: Instrument = {
      here: () => ({}),
      begin: () => traced,
      committed: () => undefined,
      watch: () => () => undefined,
    };
    const { served, ended } = await worker({ store: path, telemetry });
    const traceparent = `00-${"a".repeat(32)}-${"b".repeat(16)}-01`;
    const jobs = await Promise.all(
      [traceparent, "no trace at all"].map(async (header) => {
        const headers = { authorization: `Bearer ${token}`, traceparent: header };
        const body = JSON.stringify({ run_id: "r", tool_calls: [echo({})] });
        const response = await fetch(`${served.url}/v1/tool_jobs`, { method: "POST", headers, body });
        return ((await response.json()) as { job_id: string }).job_id;
      }),
    );
    for (const job of jobs) expect(await ended(job)).toMatchObject({ status: "completed" });
    await served.close();
    await using runtime = await createRuntime({ store: await sqliteStore(path), scheduler: false });
    const traces = await Promise.all(jobs.map(async (job) => (await runtime.ledger(job))[0]?.trace));
    expect(traces).toEqual([traceparent, undefined]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test("a port that is taken, and options that cannot be, are said at once", async () => {
  const { served } = await worker();
  const options = { tools: { echo: { run: () => 1 } }, token, store: memoryStore() };
  await expect(serveToolWorker({ ...options, port: served.port })).rejects.toMatchObject({ code: "EADDRINUSE" });
  const refused = async (wrong: object): Promise<string> =>
    serveToolWorker({ ...options, ...wrong }).then(
      () => "taken",
      (error) => `${error.code} ${error.fields.option}`,
    );
  expect(await refused({ token: "" })).toBe("INVALID_OPTION token");
  expect(await refused({ token: [] })).toBe("INVALID_OPTION token");
  // As from a file that ends with a line break: no header could hold it.
  expect(await refused({ token: "from a file\n" })).toBe("INVALID_OPTION token");
  expect(await refused({ tools: null })).toBe("INVALID_OPTION tools");
  expect(await refused({ limits: { jobs: 0 } })).toBe("INVALID_OPTION jobs");
  expect(await refused({ limits: { job: 1 } })).toBe("INVALID_OPTION job");
  // Each job would fail.
  expect(await refused({ limits: { jobMs: Number.POSITIVE_INFINITY } })).toBe("INVALID_OPTION jobMs");
  expect(await refused({ callbacks: { allow: ["nowhere"], secret: "x" } })).toBe("INVALID_OPTION allow");
  expect(await refused({ callbacks: { allow: [], secret: "" } })).toBe("INVALID_OPTION secret");
  expect(await refused({ tls: { cert: "x" } })).toBe("INVALID_OPTION tls");
  expect(await refused({ tls: { cert: "x", key: "y" } })).toBe("INVALID_OPTION tls");
  expect(await refused({ tokens: "x" })).toBe("INVALID_OPTION tokens");
});

test("what is the worker's fault is told to its log, and to nobody else", async () => {
  const logged: unknown[] = [];
  const note = (...args: unknown[]): void => void logged.push(args);
  const log: Logger = { debug: note, info: note, warn: note, error: note };
  const tools = {
    execute: async () => {
      throw new Error("no call is made here");
    },
    tools: () => {
      throw new Error("a secret of the worker");
    },
  };
  const { ask } = await worker({ tools, log });
  const answer = await ask("GET", "/v1/tools");
  expect(answer).toMatchObject({ status: 500, body: { error: { code: "UNEXPECTED" } } });
  expect(JSON.stringify(answer.body)).not.toContain("secret");
  expect(logged).toHaveLength(1);
});
