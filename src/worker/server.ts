/** A worker, from its options to its end: the jobs are runs of an ordinary runtime, and what is asked of them comes over HTTP. */
import { createServer as createHttpServer, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { createSecureContext } from "node:tls";
import type { Hono } from "hono";
import { type Clock, createRuntime, type Instrument, type Logger, type Store, type Timer } from "../index.ts";
import { checkOptions, refuse } from "../integrations/options.ts";
import { type AiTool, localTools, type PlainTool, toolEffect, type ToolExecutor } from "../integrations/tools/index.ts";
import { sqliteStore } from "../stores/sqlite/index.ts";
import { withoutPeer } from "../integrations/peer.ts";
import { readAddress } from "../integrations/address.ts";
import { isToken } from "./contract.ts";
import { callbackQueue, type CallbackOptions, jobWorkflows } from "./job.ts";
import { jobQueue, Jobs, type WorkerLimits, workerLimits } from "./jobs.ts";
import { Routes } from "./routes.ts";

export interface ToolWorkerOptions {
  /** What it executes: tools by name, as for `localTools`, or any executor. */
  tools: ToolMap | ToolExecutor;
  /** What a client must show. Several while they are being changed. */
  token: string | readonly string[];
  /** Where the jobs are kept: the path of a SQLite file, or a store; workers over one need the same tools. Default: `.abstractruntime/tool-jobs.db`. */
  store?: string | Store;
  /** Default: 0, any that is free. */
  port?: number;
  /** Default: 127.0.0.1, this machine alone. */
  host?: string;
  /** Certificate and key as PEM text. Default: plain HTTP, for this machine or behind a proxy that has them. */
  tls?: { cert: string; key: string };
  /** Who may be called back when a job has ended. Default: nobody. */
  callbacks?: CallbackOptions;
  limits?: Partial<WorkerLimits>;
  /** As of `createRuntime`: what its jobs do is then part of the trace of whoever submitted them. Default: none. */
  telemetry?: Instrument;
  /** Where it reports what is no client's fault. Default: nowhere. */
  log?: Logger;
  clock?: Clock;
}

// biome-ignore lint/suspicious/noExplicitAny: what each takes is inferred by localTools(), which may stand around the map.
type ToolMap = Readonly<Record<string, PlainTool<any> | AiTool>>;

/** A worker that listens. */
export interface ToolWorker extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /**
   * Takes no more requests, lets calls under way end for up to `drainMs` (default 10 s), and closes the store. What has not ended goes on
   * in the next worker over this store. A second call waits for the first.
   */
  close(options?: { drainMs?: number }): Promise<void>;
}

const optionNames = ["tools", "token", "store", "port", "host", "tls", "callbacks", "limits", "telemetry", "log", "clock"];

/**
 * Serves tools over HTTP, as jobs that survive its restart. Needs the packages `hono` and `@hono/node-server`. Resolves when it listens.
 *
 * @throws INVALID_OPTION, what opening the store rejects with, and what listening rejects with (EADDRINUSE).
 */
export async function serveToolWorker(options: ToolWorkerOptions): Promise<ToolWorker> {
  try {
    return await served(options);
  } catch (error) {
    // A store that was given belongs to the worker, also to one that there is not.
    if (typeof options?.store === "object") await options.store.close();
    throw error;
  }
}

async function served(options: ToolWorkerOptions): Promise<ToolWorker> {
  const { limits, tokens } = readOptions(options);
  const { tools, port = 0, host = "127.0.0.1", tls, callbacks, telemetry, log, clock } = options;
  const executor = isExecutor(tools) ? tools : localTools(tools);
  const { app, createAdaptorServer } = await loadHono();
  const { store = ".abstractruntime/tool-jobs.db" } = options;
  const settings = { ...limits, ...(callbacks ? { callbacks } : {}) };
  const opened = typeof store === "string" ? await sqliteStore(store) : store;
  const runtime = await createRuntime({
    store: opened,
    workflows: jobWorkflows(settings),
    effects: [toolEffect(executor, { maxOutputBytes: limits.resultBytes, policy: { timeoutMs: limits.jobMs } })],
    queues: { [jobQueue]: { concurrency: limits.concurrency }, [callbackQueue]: { concurrency: callbacksAtOnce } },
    scheduler: { concurrency: limits.concurrency + callbacksAtOnce },
    // Results go out as they are.
    limits: { offloadBytes: Number.POSITIVE_INFINITY },
    ...(telemetry ? { telemetry } : {}),
    ...(log ? { log } : {}),
    ...(clock ? { clock } : {}),
  }).catch(async (error: unknown) => {
    await opened.close();
    throw error;
  });
  const now = clock ? () => clock.now() : Date.now;
  const jobs = new Jobs(runtime, settings, now);
  const routes = new Routes(jobs, executor, tokens, limits, log);
  const server = createAdaptorServer({
    fetch: routes.on(app).fetch,
    ...(tls ? { createServer: createHttpsServer, serverOptions: tls } : { createServer: createHttpServer }),
  }) as Server;
  server.requestTimeout = requestMs;
  try {
    await listening(server, port, host);
  } catch (error) {
    await runtime.stop();
    throw error;
  }
  const sweeper = repeat(clock, jobs.sweepMs, () => {
    jobs.sweep().catch((error: unknown) => log?.error("jobs could not be looked through", { error }));
  });
  const address = server.address() as AddressInfo;
  let closing: Promise<void> | undefined;
  const close = async ({ drainMs = 10_000 }: { drainMs?: number } = {}): Promise<void> => {
    sweeper.cancel();
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeIdleConnections();
    await runtime.stop({ timeoutMs: drainMs });
    // What is asked meanwhile is told that the runtime has stopped.
    server.closeAllConnections();
    await closed;
  };
  return {
    url: `${tls ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${address.port}`,
    port: address.port,
    close: (given) => (closing ??= close(given)),
    [Symbol.asyncDispose]: () => (closing ??= close()),
  };
}

/** Does it now and then, without holding the process open. */
function repeat(clock: Clock | undefined, everyMs: number, act: () => void): Timer {
  if (!clock) {
    const timer = setInterval(act, everyMs).unref();
    return { cancel: () => clearInterval(timer) };
  }
  const next = (): Timer =>
    clock.setTimer(() => {
      timer = next();
      act();
    }, everyMs);
  let timer = next();
  return { cancel: () => timer.cancel() };
}

const callbacksAtOnce = 50;

/** How long a request may take to arrive. */
const requestMs = 30_000;

function listening(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function readOptions(options: ToolWorkerOptions): { limits: WorkerLimits; tokens: string[] } {
  checkOptions(options, optionNames, "serveToolWorker()");
  const { tools, token, callbacks, tls, port = 0, host = "127.0.0.1", limits = {} } = options;
  if (typeof tools !== "object" || tools === null) refuse("tools", "serveToolWorker() needs tools, or an executor");
  const tokens = [token].flat();
  if (tokens.length === 0 || !tokens.every(isToken))
    refuse("token", "serveToolWorker() needs a token, as text that a header can hold");
  if (!(Number.isInteger(port) && port >= 0 && port <= 65_535)) refuse("port", "port must be a whole number from 0 to 65535");
  // Node takes an empty one for all addresses of the machine.
  if (typeof host !== "string" || host === "") refuse("host", "host must be an address or a name of this machine");
  checkOptions(limits, Object.keys(workerLimits), "serveToolWorker({ limits })");
  for (const [name, value] of Object.entries(limits))
    if (!(typeof value === "number" && value >= 1)) refuse(name, `limits.${name} must be a number from 1`);
  if (limits.jobMs === Number.POSITIVE_INFINITY) refuse("jobMs", "limits.jobMs must have an end");
  if (callbacks) {
    checkOptions(callbacks, ["allow", "secret"], "serveToolWorker({ callbacks })");
    if (typeof callbacks.secret !== "string" || callbacks.secret === "") refuse("secret", "callbacks.secret must be text");
    if (!Array.isArray(callbacks.allow) || callbacks.allow.some((one) => typeof readAddress(one) === "string"))
      refuse("allow", "callbacks.allow must be a list of http or https addresses");
  }
  if (tls && (typeof tls.cert !== "string" || typeof tls.key !== "string")) refuse("tls", "tls is { cert, key }, as PEM text");
  if (tls) checkTls(tls);
  return { limits: { ...workerLimits, ...limits }, tokens };
}

/** Before anything is opened. */
function checkTls({ cert, key }: { cert: string; key: string }): void {
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    refuse("tls", `tls: the certificate and the key cannot be used (${(error as Error).message})`);
  }
}

/** A tool is an object, so that one named "execute" is not taken for an executor. */
function isExecutor(tools: ToolMap | ToolExecutor): tools is ToolExecutor {
  return typeof (tools as Partial<ToolExecutor>).execute === "function";
}

async function loadHono(): Promise<{
  app: Hono;
  createAdaptorServer: typeof import("@hono/node-server").createAdaptorServer;
}> {
  try {
    const { Hono } = await import("hono");
    const { createAdaptorServer } = await import("@hono/node-server");
    return { app: new Hono(), createAdaptorServer };
  } catch (cause) {
    throw withoutPeer(cause, ["hono", "@hono/node-server"], "serveToolWorker", "a tool worker is served by them");
  }
}
