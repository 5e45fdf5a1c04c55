/** The jobs of one worker: what may be asked of them, and what becomes of those that nobody asks for. */
import { createHash, randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import { AbstractRuntimeError, isError, type JsonObject, type Runtime, type RunStatus } from "../index.ts";
import { allowedAddress } from "../integrations/address.ts";
import type { Job, JobRequest } from "./contract.ts";
import { jobOf, type JobSettings, jobWorkflowId, originOf } from "./job.ts";

export interface WorkerLimits {
  /** Bytes of a request. Default: 1 MiB. */
  bodyBytes: number;
  /** Calls of one job. Default: 100. */
  calls: number;
  /** Jobs that have not ended. Default: 1,000. */
  jobs: number;
  /** Jobs that execute at the same time. Default: 16. */
  concurrency: number;
  /** Bytes of a job's results as JSON; of one that is over it, only that is told. Default: 4 MiB. */
  resultBytes: number;
  /** Longest time from the begin of a job to its end, in milliseconds, the time it waits for its turn apart. Default: 1 hour. */
  jobMs: number;
  /** A job that has not ended is cancelled when nobody has asked for it for so long, in milliseconds. Default: 1 hour. */
  abandonAfterMs: number;
  /** How long a job is kept after its end, in milliseconds. Default: 7 days. */
  keepMs: number;
}

export const workerLimits: WorkerLimits = {
  bodyBytes: 1024 * 1024,
  calls: 100,
  jobs: 1_000,
  concurrency: 16,
  resultBytes: 4 * 1024 * 1024,
  jobMs: 60 * 60_000,
  abandonAfterMs: 60 * 60_000,
  keepMs: 7 * 24 * 60 * 60_000,
};

export const jobQueue = "tool-jobs";
const live: readonly RunStatus[] = ["running", "waiting"];

export class Jobs {
  readonly #runtime: Runtime;
  readonly #settings: JobSettings & WorkerLimits;
  readonly #now: () => number;
  /** When live jobs were last asked for. Not kept: after a restart, their time begins anew. */
  readonly #asked = new Map<string, number>();
  /** Since when jobs can be asked for here. */
  #openedAt: number;
  #sweptAt: number;
  /** Submissions under way, which the store may not count yet. */
  #coming = 0;

  constructor(runtime: Runtime, settings: JobSettings & WorkerLimits, now: () => number) {
    this.#runtime = runtime;
    this.#settings = settings;
    this.#now = now;
    this.#openedAt = this.#sweptAt = now();
  }

  /**
   * Makes a job; durable when this resolves. With the key of one that exists and the same request, it is that one.
   *
   * @param trace The W3C `traceparent` of whoever submits it.
   * @throws TOOL_JOB_LIMIT, TOOL_JOB_CONFLICT, TOOL_JOB_NOT_FOUND (it was purged), TOOL_CALLBACK_REFUSED, and what a run's vars may not be
   */
  async submit(
    { runId, calls, metadata, callbackUrl }: JobRequest,
    { key, trace }: { key?: string | undefined; trace?: string | undefined },
  ): Promise<Job> {
    const { callbacks, calls: mostCalls } = this.#settings;
    checkLimit("calls of one job", calls.length, mostCalls);
    if (key === "") throw new AbstractRuntimeError("TOOL_JOB_INVALID", { problem: "the header Idempotency-Key is empty" });
    if (callbackUrl !== undefined && (!callbacks || typeof allowedAddress(callbackUrl, callbacks.allow) === "string"))
      throw new AbstractRuntimeError("TOOL_CALLBACK_REFUSED", { target: originOf(callbackUrl) });
    const jobId = `job_${key === undefined ? randomUUID() : createHash("sha256").update(key).digest("hex")}`;
    const vars = {
      runId,
      calls,
      ...(metadata === undefined ? {} : { metadata }),
      ...(callbackUrl === undefined ? {} : { callbackUrl }),
    };
    // Those that come later count for nothing: of many at the same moment, the first are taken.
    const ahead = this.#coming++;
    try {
      await this.#checkRoom(jobId, ahead);
      await this.#runtime.start(jobWorkflowId, { runId: jobId, vars, queue: jobQueue, ...(trace ? { trace } : {}) });
    } catch (error) {
      if (!isError(error, "RUN_EXISTS")) throw ofJob(error, jobId);
      const { vars: before } = await this.#runtime.get(jobId);
      if (!isSameJob(before, vars)) throw new AbstractRuntimeError("TOOL_JOB_CONFLICT", { jobId });
    } finally {
      this.#coming -= 1;
    }
    return this.get(jobId);
  }

  /** @throws TOOL_JOB_NOT_FOUND */
  async get(jobId: string): Promise<Job> {
    const run = await this.#runtime.get(jobId).catch((error: unknown) => {
      throw ofJob(error, jobId);
    });
    // The store may hold runs of others.
    if (run.workflowId !== jobWorkflowId) throw new AbstractRuntimeError("TOOL_JOB_NOT_FOUND", { jobId });
    this.#asked.set(jobId, this.#now());
    return jobOf(run, this.#settings);
  }

  /** Tells a job to stop. One that has ended stays as it is. @throws TOOL_JOB_NOT_FOUND */
  async cancel(jobId: string): Promise<Job> {
    const job = await this.get(jobId);
    if (job.status !== "pending" && job.status !== "running") return job;
    await this.#end(jobId, "its client cancelled it");
    return this.get(jobId);
  }

  /** How often to sweep, in milliseconds. */
  get sweepMs(): number {
    return Math.min(60_000, this.#settings.abandonAfterMs);
  }

  /** Cancels jobs that nobody asks for, and removes those that ended long ago. */
  async sweep(): Promise<void> {
    const { abandonAfterMs, keepMs } = this.#settings;
    const lateMs = this.#now() - this.#sweptAt - this.sweepMs;
    this.#sweptAt = this.#now();
    if (lateMs > this.sweepMs) {
      // This machine was asleep, and perhaps who asks was, too.
      this.#openedAt = this.#sweptAt;
      this.#asked.clear();
    }
    const alive = new Set<string>();
    for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
      const page = await this.#runtime.list({ workflowId: jobWorkflowId, status: live, ...(cursor ? { cursor } : {}) });
      cursor = page.next;
      for (const { runId, createdAt } of page.runs) {
        alive.add(runId);
        // What was submitted since, and never asked for here, is looked after by another process over this store.
        const asked = this.#asked.get(runId) ?? (createdAt > this.#openedAt ? undefined : this.#openedAt);
        if (asked !== undefined && this.#now() - asked > abandonAfterMs) await this.#end(runId, "nobody asked for it any more");
      }
    }
    for (const jobId of this.#asked.keys()) if (!alive.has(jobId)) this.#asked.delete(jobId);
    await this.#runtime.purge({ workflowId: jobWorkflowId, olderThanMs: keepMs });
  }

  async #end(jobId: string, reason: string): Promise<void> {
    try {
      await this.#runtime.cancel(jobId, { reason });
    } catch (error) {
      // It has ended meanwhile.
      if (!isError(error, "RUN_ENDED")) throw error;
    }
  }

  /** What exists already takes no room. */
  async #checkRoom(jobId: string, ahead: number): Promise<void> {
    const found = (await this.#runtime.count({ workflowId: jobWorkflowId, status: live })) + ahead + 1;
    if (found <= this.#settings.jobs) return;
    const existing = await this.#runtime.count({ workflowId: jobWorkflowId, idPrefix: jobId });
    if (existing === 0) checkLimit("jobs that have not ended", found, this.#settings.jobs);
  }
}

/** Where its end is reported is no part of it: a host that submits again may have moved. The first address stays. */
function isSameJob(before: JsonObject, { runId, calls, metadata }: Partial<JobRequest>): boolean {
  return isDeepStrictEqual([before.runId, before.calls, before.metadata], [runId, calls, metadata]);
}

/** @throws TOOL_JOB_LIMIT */
export function checkLimit(what: string, found: number, limit: number): void {
  if (found > limit) throw new AbstractRuntimeError("TOOL_JOB_LIMIT", { what, found, limit });
}

function ofJob(error: unknown, jobId: string): unknown {
  if (isError(error, "RUN_NOT_FOUND")) return new AbstractRuntimeError("TOOL_JOB_NOT_FOUND", { jobId });
  if (isError(error, "RUN_PURGED")) return new AbstractRuntimeError("TOOL_JOB_NOT_FOUND", { jobId, purged: true });
  return error;
}
