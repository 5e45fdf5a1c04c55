/** A workflow of one streaming effect, for two processes. */
import { complete, defineWorkflow } from "abstractruntime";
import { talking } from "./watching.ts";

export const heldSay = talking();
export const endless = defineWorkflow({
  id: "endless",
  effects: [heldSay.say],
  entry: "ask",
  nodes: { ask: () => heldSay.say("go", { resultKey: "said", nextNode: "end" }), end: () => complete() },
});
