/** A job as a workflow: its calls, within its time, and then the callback. Everything that survives a restart does so as any run does. */
import {
  AbstractRuntimeError,
  any,
  complete,
  defineEffect,
  defineWorkflow,
  type ErrorData,
  goto,
  type JsonObject,
  permanent,
  type Run,
  sleep,
  subworkflow,
  type,
  type Workflow,
} from "../index.ts";
import { toolCall, type ToolCall, toolCalls, type ToolResult } from "../integrations/tools/index.ts";
import { allowedAddress } from "../integrations/address.ts";
import type { Job } from "./contract.ts";
import { sign } from "./signature.ts";

export interface CallbackOptions {
  /** What may be called: addresses such as `https://app.example.com/hooks`, each with all that stands below it. */
  allow: readonly string[];
  /** What callbacks are signed with; `toolCallback` at the other side needs it. */
  secret: string;
}

export interface JobSettings {
  /** Longest time from the begin of a job to its end, in milliseconds. */
  jobMs: number;
  callbacks?: CallbackOptions;
}

/** A job as its client made it, and then what it came to. */
interface JobVars {
  runId: string;
  calls: ToolCall[];
  metadata?: JsonObject;
  callbackUrl?: string;
  /** The first of: the results, the end of its time. */
  ended?: { index: 0; result: ToolResult[] } | { index: 1; result: JsonObject };
  failure?: { code?: string; message: string };
}

/** What is told when a job has ended. */
interface CallbackVars {
  url: string;
  jobId: string;
  body: JsonObject;
}

export const jobWorkflowId = "tool-job";
/** Of callbacks: hosts that do not answer keep no job from its turn. */
export const callbackQueue = "tool-job-callbacks";

/** Of a job, and of the callback that it may end with. */
export function jobWorkflows(settings: JobSettings): Workflow[] {
  const tell = tellEffect(settings);
  const callback = defineWorkflow({
    id: "tool-job-callback",
    title: "Callback of a job",
    vars: type<CallbackVars>(),
    effects: [tell],
    entry: "tell",
    nodes: {
      tell: ({ vars }) => tell({ ...vars }, { nextNode: "told" }),
      told: () => complete(),
    },
  });
  const job = defineWorkflow({
    id: jobWorkflowId,
    title: "A job of the tool worker",
    vars: type<JobVars>(),
    effects: [toolCall],
    entry: "call",
    nodes: {
      call: ({ vars }) =>
        any([toolCalls(vars.calls), sleep(settings.jobMs)], {
          resultKey: "ended",
          nextNode: "ended",
          errorNode: "failed",
          // Vars that hold any JSON are too deep for the compiler's comparison with the result.
        }) as never,
      failed: ({ vars, error }) => {
        vars.failure = failureOf(error);
        return goto("ended");
      },
      ended: ({ vars, runId: jobId }) => {
        const { runId, callbackUrl, metadata = {} } = vars;
        if (callbackUrl === undefined) return complete();
        const { status } = outcomeOf(vars, settings) ?? {};
        const body = { job_id: jobId, run_id: runId, status: status ?? null, metadata };
        const start = { vars: { url: callbackUrl, jobId, body }, detached: true, queue: callbackQueue } as const;
        return subworkflow(callback, start, { nextNode: "told" });
      },
      told: () => complete(),
    },
  });
  return [job as Workflow, callback as Workflow];
}

/** The job that a run stands for. @param mostBytes Of its results together, as JSON. */
export function jobOf(run: Run, settings: JobSettings & { resultBytes: number }): Job {
  const vars = run.vars as unknown as JobVars;
  const { runId: jobId, status, error, seq, cancelling } = run;
  const job = { jobId, runId: vars.runId };
  const outcome = outcomeOf(vars, settings);
  if (outcome) {
    const { results } = outcome;
    return { ...job, ...outcome, ...(results ? { results: bounded(results, settings.resultBytes) } : {}) };
  }
  if (status === "failed") return { ...job, status, error: failureOf(error) };
  if (status === "cancelled")
    return { ...job, status, error: { message: cancelling?.reason ?? "it was cancelled without a reason" } };
  return { ...job, status: seq === 0 ? "pending" : "running" };
}

function outcomeOf({ ended, failure }: JobVars, { jobMs }: JobSettings): Pick<Job, "status" | "results" | "error"> | undefined {
  if (ended?.index === 0) return { status: "completed", results: ended.result };
  if (ended) return { status: "failed", error: { code: "TOOL_JOB_TIMEOUT", message: `it did not end within ${jobMs} ms` } };
  return failure && { status: "failed", error: failure };
}

/** Without the stack: it is the worker's own business. */
function failureOf(error: ErrorData | undefined): { code?: string; message: string } {
  const { code, message = "it failed" } = error ?? {};
  return { ...(code === undefined ? {} : { code }), message };
}

/** In their order, as long as there is room: of what is too large, only that is said. */
function bounded(results: readonly ToolResult[], mostBytes: number): ToolResult[] {
  let sizeBytes = 0;
  return results.map((result) => {
    const ownBytes = Buffer.byteLength(JSON.stringify(result));
    if (sizeBytes + ownBytes <= mostBytes) {
      sizeBytes += ownBytes;
      return result;
    }
    const { code, problem } = new AbstractRuntimeError("TOOL_JOB_LIMIT", {
      what: `bytes of results, with that of tool "${result.name}"`,
      found: sizeBytes + ownBytes,
      limit: mostBytes,
    });
    return { ...result, success: false, output: null, error: { code, message: problem } };
  });
}

function tellEffect({ callbacks }: JobSettings) {
  return defineEffect("tool_job_callback", {
    title: "Callback of a job",
    input: type<CallbackVars>(),
    // Calling back twice harms nobody.
    speculative: true,
    // The first comes soon: a job may end before its run has recorded that it waits.
    policy: { maxAttempts: 6, backoff: { initialMs: 100, factor: 4, maxMs: 60_000 }, timeoutMs: 10_000 },
    run: async ({ url, jobId, body }, { clock, signal }) => {
      // Asked again: the worker may have been started with other settings since.
      if (!callbacks || typeof allowedAddress(url, callbacks.allow) === "string")
        throw permanent(new AbstractRuntimeError("TOOL_CALLBACK_REFUSED", { target: originOf(url) }));
      const text = JSON.stringify(body);
      const headers = { "content-type": "application/json", ...sign(callbacks.secret, jobId, text, clock.now()) };
      const response = await fetch(url, { method: "POST", headers, body: text, redirect: "manual", signal });
      await response.body?.cancel();
      if (!response.ok) throw new Error(`${originOf(url)} answered HTTP ${response.status}`);
      return null;
    },
  });
}

/** What may be told of an address: paths may hold secrets. */
export function originOf(url: string): string {
  return URL.parse(url)?.origin ?? "no address";
}
