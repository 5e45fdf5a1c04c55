/**
 * Tools of a worker elsewhere, as an executor. A call is a job under the call's idempotency key, and then a durable wait: between two
 * looks nothing of it is in memory, and what is known of the job stands in the wait's details.
 */
import { type EffectContext, type ErrorCode, type ErrorFields, isError, type Json, wait, type WaitRequest } from "../index.ts";
import { checkOptions, refuse } from "../integrations/options.ts";
import {
  type ToolCall,
  type ToolDescription,
  type ListingExecutor,
  toolFailure,
  type ToolResult,
} from "../integrations/tools/index.ts";
import { isObject } from "../integrations/json-object.ts";
import { readJob, requestBody, waitKeyPrefix } from "./contract.ts";
import { ToolList } from "./tool-list.ts";
import { type Answer, WorkerClient, type WorkerClientOptions } from "./worker-client.ts";

export interface RemoteToolsOptions extends WorkerClientOptions {
  /** What models are told. Default: the worker is asked. */
  tools?: readonly ToolDescription[];
  /** Where the worker reports that a job has ended: the route of `toolCallback`. Default: it is only asked. */
  callbackUrl?: string;
  /** Times between two looks, in milliseconds; the last one again and again. Default: 1, 2, 5, 10, 30 and 60 seconds. */
  pollMs?: number | readonly number[];
  /** Longest time for a call, in milliseconds, in which the worker may also be away. Default: 1 hour. */
  timeoutMs?: number;
}

const clientOptions = ["url", "token", "insecure", "requestTimeoutMs", "maxResponseBytes", "fetch"];
const optionNames = [...clientOptions, "tools", "callbackUrl", "pollMs", "timeoutMs"];
const defaultPollMs = [1_000, 2_000, 5_000, 10_000, 30_000, 60_000];

/**
 * Executes calls at a tool worker. What becomes of them there, and whether it can be reached at all, is told in results; a call is
 * submitted again and again under one key while the worker is away, and never twice once it was taken.
 *
 * @throws INVALID_OPTION
 */
export function remoteTools(options: RemoteToolsOptions): ListingExecutor {
  checkOptions(options, optionNames, "remoteTools()");
  const { callbackUrl, pollMs = defaultPollMs, timeoutMs = 60 * 60_000 } = options;
  const intervals = [pollMs].flat();
  if (intervals.length === 0 || !intervals.every((ms) => typeof ms === "number" && ms >= 1))
    refuse("pollMs", "pollMs must be a number of milliseconds from 1, or a list of them");
  if (!(timeoutMs >= 1)) refuse("timeoutMs", "timeoutMs must be a number of milliseconds from 1");
  if (callbackUrl !== undefined && !URL.canParse(callbackUrl)) refuse("callbackUrl", "callbackUrl must be an address");
  const settings: Settings = {
    client: new WorkerClient(options),
    intervals,
    timeoutMs,
    ...(callbackUrl === undefined ? {} : { callbackUrl }),
  };
  const { tools } = options;
  const list = new ToolList(settings.client);
  return {
    execute: (call, context) => new RemoteCall(settings, call, context).go(),
    tools: async () => [...(tools ?? (await list.now()))],
  };
}

/** Whoever reads it decides whether to call the tool again. */
const perhapsCalled = "should an earlier submission have arrived, the tool may have been called";

interface Settings {
  client: WorkerClient;
  intervals: readonly number[];
  timeoutMs: number;
  callbackUrl?: string;
}

/** What a call has come to, as the details of its wait. */
type Known = {
  kind: "tool_job";
  /** Null while no worker has taken it. */
  jobId: string | null;
  worker: string;
  /** When it was first to be submitted, in milliseconds since 1970. */
  since: number;
  looks: number;
};

class RemoteCall {
  readonly #settings: Settings;
  readonly #call: ToolCall;
  readonly #context: EffectContext;
  readonly #known: Known;

  constructor(settings: Settings, call: ToolCall, context: EffectContext) {
    this.#settings = settings;
    this.#call = call;
    this.#context = context;
    this.#known = knownOf(context.waited) ?? {
      kind: "tool_job",
      jobId: null,
      worker: settings.client.origin,
      since: context.clock.now(),
      looks: 0,
    };
  }

  async go(): Promise<ToolResult | WaitRequest> {
    const { jobId } = this.#known;
    if (this.#context.cancelled) return this.#callOff(jobId);
    return jobId === null ? this.#submit() : this.#ask(jobId);
  }

  async #submit(): Promise<ToolResult | WaitRequest> {
    const { client, callbackUrl } = this.#settings;
    const { idempotencyKey, runId, signal } = this.#context;
    const body = requestBody({
      runId,
      calls: [this.#call],
      metadata: { wait_key: this.#waitKey },
      ...(callbackUrl === undefined ? {} : { callbackUrl }),
    });
    const headers = { ...this.#context.traceHeaders?.(), "idempotency-key": idempotencyKey };
    // Not cut off by a cancel: it may have arrived, and then there is a job to be called off.
    const answer = await client.request("POST", "tool_jobs", { body, headers });
    if (answer.kind === "unreachable") return this.#later(null, answer);
    if (answer.kind !== "given") {
      const isFirst = this.#known.looks === 0 && !this.#context.uncertain;
      return this.#refused(isFirst ? answer : { ...answer, problem: `${answer.problem}; ${perhapsCalled}` });
    }
    const job = readJob(answer.body);
    if (typeof job === "string") return this.#failed("TOOL_WORKER_INVALID", { problem: job });
    if (isError(signal.reason, "RUN_CANCELLED")) return this.#callOff(job.jobId);
    // One that was submitted before may have ended long ago.
    return job.status === "completed" ? this.#ask(job.jobId) : this.#later(job.jobId);
  }

  async #ask(jobId: string): Promise<ToolResult | WaitRequest> {
    const answer = await this.#settings.client.request("GET", `tool_jobs/${encodeURIComponent(jobId)}`);
    if (answer.kind === "unreachable") return this.#later(jobId, answer);
    // It knew the token when it took the job: one of the two sides is being given another. And it knew what a tool job is.
    if (answer.kind === "refused" && (answer.status === 401 || answer.status === 403 || answer.isPage)) return this.#later(jobId);
    if (answer.kind === "refused" && (answer.status === 404 || answer.status === 410))
      return this.#failed("TOOL_JOB_LOST", { jobId });
    if (answer.kind !== "given") return this.#refused(answer);
    const job = readJob(answer.body, { jobId, tool: this.#call.name });
    if (typeof job === "string") return this.#failed("TOOL_WORKER_INVALID", { problem: job });
    if (job.jobId !== jobId)
      return this.#failed("TOOL_WORKER_INVALID", { problem: `asked for job ${jobId}, it told of another` });
    switch (job.status) {
      case "pending":
      case "running":
        return this.#later(jobId);
      case "completed":
        return this.#result(job.results ?? []);
      case "failed":
      case "cancelled":
        return this.#ended(jobId, job);
    }
  }

  /** The result of this very call; one of another call is none. */
  #result(results: readonly (ToolResult | undefined)[]): ToolResult {
    const [result, another] = results;
    const { name, callId } = this.#call;
    if (result && !another && result.name === name && result.callId === callId) return result;
    return this.#failed("TOOL_WORKER_INVALID", { problem: `its results are not the one of call ${callId} of tool "${name}"` });
  }

  #ended(jobId: string, { status, error }: { status: string; error?: { code?: string; message: string } }): ToolResult {
    const { code, message = "it gives no reason" } = error ?? {};
    if (code === "TOOL_JOB_TIMEOUT")
      return { ...this.#failed("TOOL_JOB_FAILED", { jobId, problem: message }), error: { code, message } };
    return this.#failed("TOOL_JOB_FAILED", { jobId, problem: `${status}: ${code === undefined ? "" : `${code}: `}${message}` });
  }

  /** Waits for the next look, unless the call's time is over. @param answer Why this look told nothing. */
  async #later(jobId: string | null, answer?: Extract<Answer, { kind: "unreachable" }>): Promise<ToolResult | WaitRequest> {
    const { client, intervals, timeoutMs } = this.#settings;
    const { since, looks } = this.#known;
    const leftMs = since + timeoutMs - this.#context.clock.now();
    if (leftMs <= 0 && jobId === null)
      return this.#failed("TOOL_WORKER_UNREACHABLE", {
        worker: client.origin,
        problem: `${answer?.problem ?? "it gave no answer"}; ${perhapsCalled}`,
      });
    if (leftMs <= 0) {
      await this.#callOff(jobId);
      return this.#failed("TOOL_JOB_TIMEOUT", { jobId: jobId as string, timeoutMs });
    }
    const intervalMs = Math.max(intervals[looks] ?? (intervals.at(-1) as number), answer?.retryAfterMs ?? 0);
    // A job that was taken begins with short looks, however often it was submitted in vain.
    const isNew = jobId !== null && this.#known.jobId === null;
    const details: Known = { ...this.#known, jobId, looks: isNew ? 1 : looks + 1 };
    return wait({
      reason: "job",
      waitKey: this.#waitKey,
      again: true,
      onTimeout: "again",
      onCancel: "again",
      timeoutMs: Math.min(isNew ? (intervals[0] as number) : intervalMs, leftMs),
      details,
    });
  }

  /** One that has ended stays as it is; a worker that cannot be reached drops it when nobody asks any more. */
  async #callOff(jobId: string | null): Promise<ToolResult> {
    if (jobId !== null) await this.#settings.client.request("DELETE", `tool_jobs/${encodeURIComponent(jobId)}`);
    return this.#failed("TOOL_JOB_FAILED", { jobId: jobId ?? "(none)", problem: "it was called off" });
  }

  #refused(answer: Extract<Answer, { kind: "refused" | "invalid" }>): ToolResult {
    if (answer.kind === "invalid") return this.#failed("TOOL_WORKER_INVALID", { problem: answer.problem });
    const { status, code, problem } = answer;
    return this.#failed("TOOL_WORKER_REFUSED", { status, problem: code === undefined ? problem : `${code}: ${problem}` });
  }

  #failed<C extends ErrorCode>(code: C, fields: ErrorFields<C>): ToolResult {
    return toolFailure(this.#call, code, fields);
  }

  /** The same for all waits of a call, since the worker is told of it once. */
  get #waitKey(): string {
    return `${waitKeyPrefix}${this.#context.idempotencyKey}`;
  }
}

/** What the last wait said, when it was one of ours: an approval may have waited before. */
function knownOf(waited: Json | undefined): Known | undefined {
  if (!isObject(waited) || waited.kind !== "tool_job") return undefined;
  return waited as Known;
}
