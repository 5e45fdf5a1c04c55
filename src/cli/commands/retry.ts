import type { AddCommand } from "../command.ts";
import { addControl } from "../control.ts";

export const addRetry: AddCommand = (program, act) =>
  addControl(program, act, {
    name: "retry",
    description: "let failed runs go on from where they failed",
    statuses: ["failed"],
    help: `The effect that failed is tried again under its idempotency key, with all its attempts; a node that threw runs again. What
was completed is not done again. The next worker with the workflow's code goes on with the run.`,
    examples: ["3f2a", "--workflow order --yes"],
    send: (runtime, runId) => runtime.retry(runId),
  });
