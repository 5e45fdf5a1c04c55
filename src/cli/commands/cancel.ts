import type { AddCommand } from "../command.ts";
import { addControl } from "../control.ts";

export const addCancel: AddCommand = (program, act) =>
  addControl(program, act, {
    name: "cancel",
    description: "end runs as cancelled; what they had done is undone where the workflow says how",
    statuses: ["running", "waiting"],
    appliesHere: true,
    spreads: true,
    reason: true,
    help: `What executes is told to stop, and its outcome recorded. Where no worker drives the run, it is cancelled here; only where its
workflow cleans up or undoes something, that waits for a worker with its code. A second cancel does nothing.`,
    examples: ["3f2a", "3f2a 77c0 --reason 'ordered twice'", "--workflow order --status waiting --yes"],
    send: (runtime, runId, reason) => runtime.cancel(runId, reason === undefined ? {} : { reason }),
  });
