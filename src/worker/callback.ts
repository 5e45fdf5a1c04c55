/** Callbacks as hosts receive them. One only wakes the run, which then asks the worker itself: nothing that it says is believed. */
import { isError, type Runtime } from "../index.ts";
import { checkOptions, refuse } from "../integrations/options.ts";
import { isObject } from "../integrations/json-object.ts";
import { objectIn, waitKeyPrefix } from "./contract.ts";
import { isSigned } from "./signature.ts";
import { boundedBytes } from "./bounded-bytes.ts";

/** A callback names a job and a wait. */
const mostBytes = 64 * 1024;

export interface ToolCallbackOptions {
  /** The secret of the worker's `callbacks`. */
  secret: string;
}

/**
 * A handler of HTTP requests, for the route that `callbackUrl` of `remoteTools` leads to. It answers 401 to what is not signed with the
 * secret or older than 5 minutes; 409 when the run does not wait for the job (yet), whereupon the worker calls again; and 200 otherwise.
 * The same callback twice does nothing.
 *
 * @throws INVALID_OPTION
 */
export function toolCallback(runtime: Runtime, options: ToolCallbackOptions): (request: Request) => Promise<Response> {
  checkOptions(options, ["secret"], "toolCallback()");
  const { secret } = options;
  if (typeof secret !== "string" || secret === "") refuse("secret", "toolCallback() needs the secret of the worker's callbacks");
  return async (request) => {
    if (request.method !== "POST") return answer(405, "a callback is a POST");
    const text = (await boundedBytes(request, mostBytes))?.toString();
    if (text === undefined) return answer(413, "a callback is not as large as this");
    if (!isSigned(secret, request.headers, text, Date.now())) return answer(401, "not signed");
    const { run_id: runId, job_id: jobId, status, metadata } = objectIn(text) ?? {};
    const waitKey = isObject(metadata) ? metadata.wait_key : undefined;
    if (
      typeof runId !== "string" ||
      typeof jobId !== "string" ||
      typeof waitKey !== "string" ||
      !waitKey.startsWith(waitKeyPrefix)
    )
      return answer(400, "not a callback of a tool job");
    return wake(runtime, runId, waitKey, { jobId, status: typeof status === "string" ? status : null });
  };
}

async function wake(runtime: Runtime, runId: string, waitKey: string, payload: object): Promise<Response> {
  try {
    await runtime.resume(runId, { waitKey, payload });
    return answer(200, "woken");
  } catch (error) {
    if (isError(error, "ALREADY_ANSWERED")) return answer(200, "it was woken before");
    if (isError(error, "NOT_WAITING") || isError(error, "WAIT_KEY_MISMATCH")) {
      const { status } = await runtime.get(runId);
      const isLive = status === "running" || status === "waiting";
      // The job may have ended before the run has recorded that it waits.
      return isLive ? answer(409, "the run does not wait for this job now") : answer(200, "the run has ended");
    }
    if (gone.some((code) => isError(error, code))) return answer(410, "there is no such run");
    if (away.some((code) => isError(error, code))) return answer(503, "the host cannot take it now");
    throw error;
  }
}

const gone = ["RUN_NOT_FOUND", "RUN_PURGED", "RUN_MOVED"] as const;
const away = ["RUNTIME_STOPPED", "STORE_CLOSED", "STORE_BUSY", "STORE_UNAVAILABLE", "STORE_FULL"] as const;

function answer(status: number, message: string): Response {
  return Response.json({ message }, { status });
}
