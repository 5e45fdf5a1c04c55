/** Tools in another process: a worker that serves them over HTTP, and the executor that calls it. */
export { serveToolWorker, type ToolWorker, type ToolWorkerOptions } from "./server.ts";
export type { CallbackOptions } from "./job.ts";
export type { WorkerLimits } from "./jobs.ts";
export { remoteTools, type RemoteToolsOptions } from "./remote-tools.ts";
export { toolCallback, type ToolCallbackOptions } from "./callback.ts";
