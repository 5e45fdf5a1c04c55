import type { AddCommand } from "../command.ts";
import { addControl } from "../control.ts";

export const addUnpause: AddCommand = (program, act) =>
  addControl(program, act, {
    name: "unpause",
    description: "let paused runs go on",
    statuses: ["running", "waiting"],
    help: "The next worker with the workflow's code goes on with them. A run that is not paused is left as it is.",
    examples: ["3f2a", "--queue mail --yes"],
    send: (runtime, runId) => runtime.unpause(runId),
  });
