import type { AddCommand } from "../command.ts";
import { addControl } from "../control.ts";

export const addPause: AddCommand = (program, act) =>
  addControl(program, act, {
    name: "pause",
    description: "let runs finish the step under way, and begin nothing new until they are unpaused",
    statuses: ["running", "waiting"],
    appliesHere: true,
    reason: true,
    help: "Answers and events that arrive meanwhile are kept. Deadlines that pass meanwhile count afterwards.",
    examples: ["3f2a", "--queue mail --reason 'the provider is down' --yes"],
    send: (runtime, runId, reason) => runtime.pause(runId, reason === undefined ? {} : { reason }),
  });
