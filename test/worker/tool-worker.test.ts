// Holds the tool worker as a process of its own: killed in the middle of jobs, stopped, used wrongly.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createRuntime, type Runtime } from "../../src/index.ts";
import { toolEffect, type ToolResult } from "../../src/integrations/tools/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { remoteTools } from "../../src/worker/index.ts";
import { eventually } from "../eventually.ts";
import { freePort } from "../free-port.ts";
import { CommandLine } from "../cli/command-line.ts";
import { asking, call } from "./asker.ts";
import { stub } from "./tool-stub.ts";

const token = "a-token-of-the-process";
const fixture = (name: string): string => resolve(import.meta.dirname, "fixtures", name);

let directory: string;
const processes = new Set<Process>();
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "tool-worker-"));
});
afterEach(async () => {
  for (const process of processes) await process.end("SIGKILL");
  processes.clear();
  rmSync(directory, { recursive: true, force: true });
});

class Process {
  readonly #child: ChildProcess;
  readonly #exit: Promise<unknown>;
  out = "";
  err = "";

  constructor(args: readonly string[], env: Record<string, string | undefined> = {}) {
    const command = [...process.execArgv, resolve("src/cli/main.ts"), "tool-worker", ...args];
    this.#child = spawn(process.execPath, command, {
      cwd: directory,
      env: { ...process.env, TOOLS_SEEN: join(directory, "seen"), TOOL_WORKER_TOKEN: token, ...env },
    });
    this.#child.stdout?.on("data", (chunk) => (this.out += chunk));
    this.#child.stderr?.on("data", (chunk) => (this.err += chunk));
    this.#exit = once(this.#child, "close");
    processes.add(this);
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves with what the pattern found, when it has been said. */
  async says(text: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const found = text.exec(this.out + this.err);
      if (found) return found;
      if (this.#child.exitCode !== null || this.#child.signalCode !== null)
        throw new Error(`it ended without saying ${text}: ${this.err}`);
      const { stdout, stderr } = this.#child;
      await Promise.race([once(stdout as NodeJS.EventEmitter, "data"), once(stderr as NodeJS.EventEmitter, "data"), this.#exit]);
    }
  }

  async end(signal?: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    if (signal && this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
    await this.#exit;
    return { code: this.#child.exitCode, signal: this.#child.signalCode };
  }
}

async function started(port?: string, ...more: string[]): Promise<{ worker: Process; url: string }> {
  const worker = new Process([fixture("tools.ts"), "--port", port ?? String(await freePort()), ...more]);
  const [, url = ""] = await worker.says(/serves charge, read, send at (http\S+), with its jobs in sqlite:\S+\. Ctrl-C stops it/);
  return { worker, url };
}

async function host(url: string): Promise<Runtime> {
  const effects = [toolEffect(remoteTools({ url, token, pollMs: 20 }))];
  return createRuntime({ store: memoryStore(), workflows: [asking], effects, scheduler: { pollMs: 20 } });
}

/** Of the file whose tools it serves, so that a worker with other tools carries out none of its jobs. */
const jobsFile = (): string => {
  const [found = "none"] = readdirSync(join(directory, ".abstractruntime")).filter((name) =>
    /^tool-jobs-.*-fixtures-tools\.db$/.test(name),
  );
  return join(directory, ".abstractruntime", found);
};

/** What its store says, while it has it open. */
async function inStore<T>(look: (runtime: Runtime) => Promise<T>): Promise<T> {
  await using runtime = await createRuntime({ store: await sqliteStore(jobsFile()), scheduler: false });
  return look(runtime);
}

function seen(): string[] {
  const file = join(directory, "seen");
  return existsSync(file) ? readFileSync(file, "utf8").trimEnd().split("\n") : [];
}

const open = (): void => writeFileSync(join(directory, "seen.gate"), "");

test("killed in the middle of jobs and started again, it goes on; what was completed is not called again", async () => {
  const { worker: first, url } = await started();
  await using runtime = await host(url);
  const calls = [call("charge", {}, "c"), call("read", {}, "r"), call("send", {}, "s")];
  await runtime.start(asking, { runId: "asks", vars: { calls } });
  await eventually(() => seen().length === 3);
  await eventually(() =>
    inStore(async (jobs) => {
      const { runs } = await jobs.list({ workflowId: "tool-job", status: "completed" });
      return runs.length === 1;
    }),
  );
  await eventually(async () => (await runtime.get("asks")).status === "waiting");
  expect(await first.end("SIGKILL")).toEqual({ code: null, signal: "SIGKILL" });
  open();
  const { worker: second } = await started(new URL(url).port);
  const results = await runtime.result<ToolResult[]>("asks", { timeoutMs: 100_000 });
  expect(results).toMatchObject([
    { callId: "c", success: true, output: "charge done" },
    // It only reads, so it was done again.
    { callId: "r", success: true, output: "read done" },
    // Nobody knows whether it was sent.
    { callId: "s", success: false, error: { code: "EFFECT_UNCERTAIN" } },
  ]);
  expect(seen().toSorted()).toEqual(
    [`charge ${first.pid}`, `read ${first.pid}`, `read ${second.pid}`, `send ${first.pid}`].toSorted(),
  );
  expect(await second.end("SIGTERM")).toEqual({ code: 0, signal: null });
  expect(first.out + first.err + second.out + second.err).not.toContain(token);
  for (const end of ["", "-wal"]) {
    if (existsSync(jobsFile() + end)) expect(readFileSync(jobsFile() + end).includes(token)).toBe(false);
  }
});

test("Ctrl-C lets calls under way finish, takes nothing new, and says so", async () => {
  const { worker, url } = await started(undefined, "--drain", "30");
  await using runtime = await host(url);
  await runtime.start(asking, { runId: "asks", vars: { calls: [call("send")] } });
  await eventually(() => seen().length === 1);
  worker.kill("SIGINT");
  await worker.says(/Stopping: calls under way get up to 30 seconds to finish\. Ctrl-C again ends it at once\./);
  open();
  expect(await worker.end()).toEqual({ code: 0, signal: null });
  expect(worker.err).toContain("Stopped. Jobs that have not ended go on when it is started again.");
  const next = new Process([fixture("tools.ts"), "--port", new URL(url).port, "--json"]);
  await next.says(/\n/);
  expect(JSON.parse(next.out)).toEqual({
    url,
    pid: next.pid,
    store: expect.stringMatching(/^sqlite:\.abstractruntime\/tool-jobs-.*fixtures-tools\.db$/),
    tools: ["charge", "read", "send"],
  });
  expect(await runtime.result("asks", { timeoutMs: 100_000 })).toMatchObject([{ success: true, output: "send done" }]);
  expect(seen()).toEqual([`send ${worker.pid}`]);
  await next.end("SIGTERM");
});

test("a signal ends it also when its file holds something open, such as a connection to a server of tools", async () => {
  // Whatever letters its name has, its jobs are its own.
  symlinkSync(fixture("holding.ts"), join(directory, "工具.ts"));
  const worker = new Process(["工具.ts", "--port", "0"]);
  await worker.says(/serves now at \S+, with its jobs in sqlite:\.abstractruntime\/tool-jobs-工具\.db/);
  expect(await worker.end("SIGTERM")).toEqual({ code: 0, signal: null });
  expect(worker.err).toContain("Stopped.");
});

test("a second signal ends it at once, and the next start goes on", async () => {
  const { worker, url } = await started(undefined, "--drain", "60");
  await using runtime = await host(url);
  await runtime.start(asking, { runId: "asks", vars: { calls: [call("read")] } });
  await eventually(() => seen().length === 1);
  worker.kill("SIGINT");
  await worker.says(/up to 60 seconds/);
  expect(await worker.end("SIGINT")).toEqual({ code: null, signal: "SIGINT" });
  open();
  const { worker: next } = await started(new URL(url).port);
  expect(await runtime.result("asks", { timeoutMs: 100_000 })).toMatchObject([{ success: true }]);
  await next.end("SIGTERM");
});

test("what cannot work is said at once", async () => {
  await using taken = await stub(() => ({}));
  const port = new URL(taken.url).port;
  const tools = fixture("tools.ts");
  const cases: [args: string[], code: number, said: RegExp, env?: Record<string, string | undefined>][] = [
    [[tools], 2, /^INVALID_OPTION: the environment variable TOOL_WORKER_TOKEN is empty/, { TOOL_WORKER_TOKEN: "" }],
    [[tools, "--token-env", "OTHER_TOKEN"], 2, /^INVALID_OPTION: the environment variable OTHER_TOKEN is empty/],
    [[tools, "--port", "70000"], 2, /^INVALID_OPTION: --port "70000" is not a number from 0 to 65535/],
    [[tools, "--port", port], 2, /^INVALID_OPTION: --port \d+: it is taken/],
    [[tools, "--port", "80.5"], 2, /^INVALID_OPTION: port must be a whole number from 0 to 65535/],
    // A documentation address: no machine has it.
    [
      [tools, "--port", "0", "--host", "192.0.2.1"],
      2,
      /^INVALID_OPTION: --host 192\.0\.2\.1: it cannot be listened at \(EADDRNOTAVAIL\)/,
    ],
    // Node would take it for all addresses of the machine.
    [[tools, "--port", "0", "--host", ""], 2, /^INVALID_OPTION: host must be an address/],
    [[tools, "--concurrency", "0"], 2, /^INVALID_OPTION: --concurrency "0" is not a number from 1/],
    [[tools, "--tls-cert", "cert.pem"], 2, /^INVALID_OPTION: --tls-cert and --tls-key are needed together/],
    [[tools, "--tls-cert", "none.pem", "--tls-key", "none.pem"], 2, /^INVALID_OPTION: --tls-cert "none\.pem" cannot be read/],
    [[tools, "--callback", "https://app.example.com"], 2, /^INVALID_OPTION: .*TOOL_WORKER_CALLBACK_SECRET is empty/],
    [[tools, "--callback", "nowhere"], 2, /^INVALID_OPTION: callbacks\.allow/, { TOOL_WORKER_CALLBACK_SECRET: "s" }],
    [[tools, "--store", "redis:x"], 2, /^INVALID_OPTION: .*unknown kind of store/],
    [["none.ts"], 2, /^FILE_INVALID: none\.ts cannot be used: there is no such file/],
    [[fixture("no-tools.ts")], 2, /^FILE_INVALID: .*it exports no tools \(it exports: answer\)/],
  ];
  const line = new CommandLine();
  try {
    for (const [args, code, said, env] of cases) {
      const before = { ...process.env };
      Object.assign(process.env, { TOOL_WORKER_TOKEN: token, ...env });
      const given = await line.ar("tool-worker", ...args);
      process.env = before;
      expect({ args, code: given.code, out: given.out }).toEqual({ args, code, out: "" });
      expect(given.err).toMatch(said);
    }
  } finally {
    line.remove();
  }
});
