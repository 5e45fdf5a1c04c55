import { readFileSync } from "node:fs";
import { parse, relative, resolve } from "node:path";
import { AbstractRuntimeError } from "../../index.ts";
import type { ToolWorkerOptions } from "../../worker/index.ts";
import { type AddCommand, type Cli, defaultStore } from "../command.ts";
import { logger } from "../open-runtime.ts";
import { openStore, withoutPassword } from "../open-store.ts";
import { Advised, wrongUse } from "../problem.ts";
import { loadModule } from "../workflow-file.ts";

interface ToolWorkerFlags {
  port: string;
  host: string;
  tokenEnv: string;
  tlsCert?: string;
  tlsKey?: string;
  callback?: string[];
  callbackSecretEnv: string;
  concurrency?: string;
  drain: string;
}

/** Apart from the runs of this machine, which are somebody else's work, and from workers with other tools, which would carry out its jobs. */
function ownStore(file: string): string {
  const { dir, name } = parse(relative("", resolve(file)));
  return `sqlite:.abstractruntime/tool-jobs-${`${dir}/${name}`
    .replaceAll(/[^\p{L}\p{M}\p{N}_.]+/gu, "-")
    .replace(/^-/, "")
    .slice(-70)}.db`;
}

export const addToolWorker: AddCommand = (program, act) => {
  program
    .command("tool-worker")
    .description("serve a file's tools over HTTP, as jobs that survive a restart, for remoteTools() elsewhere")
    .argument("<file>", "module (.ts, .js) that exports the tools, as default or as `tools`")
    .option("--port <n>", "port to listen on; 0 is any that is free", "8787")
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option("--token-env <name>", "environment variable that holds the token of clients", "TOOL_WORKER_TOKEN")
    .option("--tls-cert <path>", "certificate in PEM, for https")
    .option("--tls-key <path>", "its key in PEM")
    .option("--callback <url>", "address that may be called back, with all below it; several times for several", collect)
    .option(
      "--callback-secret-env <name>",
      "environment variable that holds what callbacks are signed with",
      "TOOL_WORKER_CALLBACK_SECRET",
    )
    .option("--concurrency <n>", "jobs carried out at the same time (default: 16)")
    .option("--drain <seconds>", "how long calls under way may take when it is stopped", "10")
    .addHelpText(
      "after",
      `
Clients show the token that stands in TOOL_WORKER_TOKEN, or in the variable that --token-env names.
Jobs are kept in a store of the file's own, unless there is --store: ${ownStore("FILE.ts")}. They survive a
restart, and every command looks at them there (abstractruntime ls --store ${ownStore("tools.ts")}). Workers over one
store carry out each other's jobs, so they need the same tools.
Ctrl-C or SIGTERM lets calls under way finish (exit code 0); a second one ends it at once. What has not ended goes on with the next start.

Examples:
  $ abstractruntime tool-worker tools.ts --port 8787
  $ abstractruntime tool-worker tools.ts --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem --callback https://app.example.com/hooks`,
    )
    .action(act(toolWorker));
};

async function toolWorker(cli: Cli, path: string, flags: ToolWorkerFlags): Promise<number> {
  const { terminal } = cli;
  const drainMs = readNumber("--drain", flags.drain, 0) * 1_000;
  const port = readNumber("--port", flags.port, 0, 65_535);
  const concurrency = flags.concurrency === undefined ? undefined : readNumber("--concurrency", flags.concurrency, 1);
  const token = secretIn(flags.tokenEnv, "--token-env", "the token that clients must show");
  const tls = tlsOf(flags);
  const callbacks = callbacksOf(flags);
  const { tools, telemetry } = await exportsOf(path);
  const store = cli.store === defaultStore ? ownStore(path) : cli.store;
  const { serveToolWorker } = await import("../../worker/index.ts");
  const worker = await serveToolWorker({
    tools,
    token,
    store: await openStore(store),
    port,
    host: flags.host,
    ...(tls ? { tls } : {}),
    ...(callbacks ? { callbacks } : {}),
    ...(telemetry === undefined ? {} : { telemetry }),
    ...(concurrency === undefined ? {} : { limits: { concurrency } }),
    log: logger(terminal, cli.debug),
  }).catch((error: unknown) => {
    throw unheard(error, port, flags.host);
  });
  const stopped = Promise.withResolvers<void>();
  const ignore = terminal.io.onInterrupt(() => {
    terminal.note(`Stopping: calls under way get up to ${drainMs / 1_000} seconds to finish. Ctrl-C again ends it at once.`);
    stopped.resolve();
  });
  try {
    const names = isExecutor(tools) ? undefined : Object.keys(tools);
    if (cli.json)
      terminal.json({ url: worker.url, pid: process.pid, store: withoutPassword(store), ...(names ? { tools: names } : {}) });
    else
      terminal.line(
        `Tool worker (process ${process.pid}) serves ${names?.join(", ") ?? path} at ${worker.url}, with its jobs in ${withoutPassword(store)}. Ctrl-C stops it.`,
      );
    if (!tls && flags.host !== "127.0.0.1" && flags.host !== "localhost" && flags.host !== "::1")
      terminal.note("Plain HTTP beyond this machine: put a proxy with https before it, or give --tls-cert and --tls-key.");
    await stopped.promise;
    await worker.close({ drainMs });
    terminal.note("Stopped. Jobs that have not ended go on when it is started again.");
    return 0;
  } finally {
    await worker.close();
    ignore();
  }
}

/** Why it cannot listen, where that is the reason. */
function unheard(error: unknown, port: number, host: string): unknown {
  const { code, syscall = "" } = error as NodeJS.ErrnoException;
  if (code === "EADDRINUSE")
    return wrongUse("--port", `--port ${port}: it is taken at ${host}`, "Choose another one, or --port 0 for any that is free.");
  if (code === "EACCES" && syscall === "listen")
    return wrongUse("--port", `--port ${port}: this user may not listen at it`, "Choose one from 1024.");
  if (["listen", "getaddrinfo"].includes(syscall))
    return wrongUse("--host", `--host ${host}: it cannot be listened at (${code})`, "Name an address of this machine.");
  return error;
}

/** @throws FILE_INVALID */
async function exportsOf(path: string): Promise<Pick<ToolWorkerOptions, "tools" | "telemetry">> {
  const exported = await loadModule(path);
  const tools = exported.default ?? exported.tools;
  if (typeof tools === "object" && tools !== null && (isExecutor(tools) || Object.keys(tools).length > 0))
    return { ...exported, tools } as Pick<ToolWorkerOptions, "tools" | "telemetry">;
  const problem = `it exports no tools (it exports: ${Object.keys(exported).join(", ") || "nothing"})`;
  throw new Advised(
    new AbstractRuntimeError("FILE_INVALID", { file: path, problem }),
    "Export them as `export const tools = { NAME: ... }`, or as default: tools by name, or an executor.",
  );
}

function isExecutor(tools: object): boolean {
  return typeof (tools as { execute?: unknown }).execute === "function";
}

function tlsOf({ tlsCert, tlsKey }: ToolWorkerFlags): { cert: string; key: string } | undefined {
  if (tlsCert === undefined && tlsKey === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined)
    throw wrongUse("--tls-cert", "--tls-cert and --tls-key are needed together", "Give both, or neither.");
  return { cert: fileText("--tls-cert", tlsCert), key: fileText("--tls-key", tlsKey) };
}

function callbacksOf({ callback, callbackSecretEnv }: ToolWorkerFlags): ToolWorkerOptions["callbacks"] {
  if (!callback) return undefined;
  return { allow: callback, secret: secretIn(callbackSecretEnv, "--callback-secret-env", "what callbacks are signed with") };
}

/** Secrets stand in the environment: a command line can be read by everybody on the machine. */
function secretIn(name: string, option: string, what: string): string {
  const secret = process.env[name];
  if (secret) return secret;
  throw wrongUse(
    option,
    `the environment variable ${name} is empty; it holds ${what}`,
    `Set ${name}, or name another one with ${option}.`,
  );
}

function fileText(option: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw wrongUse(option, `${option} "${path}" cannot be read: ${(error as Error).message}`, "Check the path.");
  }
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

function readNumber(option: string, text: string, least: number, most = Number.MAX_SAFE_INTEGER): number {
  const number = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && number >= least && number <= most) return number;
  const range = most === Number.MAX_SAFE_INTEGER ? `a number from ${least}` : `a number from ${least} to ${most}`;
  throw wrongUse(option, `${option} "${text}" is not ${range}`, `Write it as ${option} ${Math.max(least, 10)}.`);
}
