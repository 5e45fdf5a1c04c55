/** The routes of a worker: who may ask, how much, and what errors look like there. */
import { isUtf8 } from "node:buffer";
import { createHash, timingSafeEqual } from "node:crypto";
import type { Context, Hono } from "hono";
import { AbstractRuntimeError, type ErrorCode, isError, type Logger } from "../index.ts";
import type { ToolExecutor } from "../integrations/tools/index.ts";
import { type Job, jobBody, readRequest } from "./contract.ts";
import { checkLimit, type Jobs, type WorkerLimits } from "./jobs.ts";
import { boundedBytes } from "./bounded-bytes.ts";

export class Routes {
  readonly #jobs: Jobs;
  readonly #executor: ToolExecutor;
  readonly #tokens: readonly Buffer[];
  readonly #limits: WorkerLimits;
  readonly #log: Logger | undefined;

  constructor(jobs: Jobs, executor: ToolExecutor, tokens: readonly string[], limits: WorkerLimits, log: Logger | undefined) {
    this.#jobs = jobs;
    this.#executor = executor;
    this.#tokens = tokens.map(hashed);
    this.#limits = limits;
    this.#log = log;
  }

  on(app: Hono): Hono {
    app.use(async (c, next) => (this.#isKnown(c.req.header("authorization")) ? next() : unauthorized()));
    app.post("/v1/tool_jobs", async (c) => {
      const request = readRequest(await bodyOf(c.req.raw, this.#limits.bodyBytes));
      const { traceparent: trace, "idempotency-key": key } = c.req.header();
      return told(202, await this.#jobs.submit(request, { key, trace }));
    });
    app.get("/v1/tool_jobs/:id", async (c) => told(200, await this.#jobs.get(c.req.param("id"))));
    const cancel = async (c: Context): Promise<Response> => told(202, await this.#jobs.cancel(c.req.param("id") as string));
    app.delete("/v1/tool_jobs/:id", cancel);
    app.post("/v1/tool_jobs/:id/cancel", cancel);
    app.get("/v1/tools", async () => Response.json({ tools: (await this.#executor.tools?.()) ?? [] }));
    app.notFound(() => problem(404, "NOT_FOUND", "there is nothing here: see docs/workers.md for what can be asked"));
    app.onError((error) => this.#failed(error));
    return app;
  }

  /** In a time that says nothing of the token: what is compared are hashes, all of them. */
  #isKnown(authorization: string | undefined): boolean {
    const [, given] = /^Bearer +(.+)$/i.exec(authorization ?? "") ?? [];
    const hash = hashed(given ?? "");
    return this.#tokens.filter((token) => timingSafeEqual(token, hash)).length > 0 && given !== undefined;
  }

  #failed(error: unknown): Response {
    const status = isError(error) ? statusOf(error) : undefined;
    if (isError(error) && status !== undefined)
      return problem(status, error.code, error.problem, isPassing(status) ? { "retry-after": "5" } : {});
    this.#log?.error("a request failed", { error });
    return problem(500, "UNEXPECTED", "the worker could not do this; its log says why");
  }
}

const statuses: Partial<Record<ErrorCode, number>> = {
  TOOL_JOB_INVALID: 400,
  NOT_JSON: 400,
  JSON_TOO_DEEP: 400,
  // What only this side could have put.
  ARTIFACT_MISSING: 400,
  TOOL_CALLBACK_REFUSED: 400,
  TOOL_JOB_NOT_FOUND: 404,
  TOOL_JOB_CONFLICT: 409,
  TOOL_JOB_LIMIT: 413,
  TOO_LARGE: 413,
  RUNTIME_STOPPED: 503,
  STORE_CLOSED: 503,
  STORE_BUSY: 503,
  STORE_UNAVAILABLE: 503,
  STORE_FULL: 503,
};

function statusOf(error: AbstractRuntimeError): number | undefined {
  if (isError(error, "TOOL_JOB_NOT_FOUND") && error.fields.purged) return 410;
  // Not what is asked, but when.
  if (isError(error, "TOOL_JOB_LIMIT") && error.fields.what.startsWith("jobs ")) return 429;
  return statuses[error.code];
}

const isPassing = (status: number): boolean => status === 429 || status === 503;

function told(status: number, job: Job): Response {
  return Response.json(jobBody(job), { status });
}

function problem(status: number, code: string, message: string, headers: Record<string, string> = {}): Response {
  return Response.json({ error: { code, message } }, { status, headers });
}

function unauthorized(): Response {
  return problem(401, "TOOL_WORKER_REFUSED", "unauthorized", { "www-authenticate": "Bearer" });
}

/** @throws TOOL_JOB_LIMIT before more than that is read, TOOL_JOB_INVALID */
async function bodyOf(request: Request, mostBytes: number): Promise<string> {
  checkLimit("bytes of a request", Number(request.headers.get("content-length") ?? 0), mostBytes);
  const body = await boundedBytes(request, mostBytes);
  if (!body)
    throw new AbstractRuntimeError("TOOL_JOB_LIMIT", { what: "bytes of a request", found: mostBytes + 1, limit: mostBytes });
  // What stands for bytes that are no text would be another argument than was meant.
  if (!isUtf8(body)) throw new AbstractRuntimeError("TOOL_JOB_INVALID", { problem: "the body is not UTF-8" });
  return body.toString();
}

function hashed(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
