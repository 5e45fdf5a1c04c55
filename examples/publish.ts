// A workflow alone in its file: approval.ts and start.ts import it, and so could your server and your tests.
import { askUser, complete, defineWorkflow, goto } from "abstractruntime";
import { z } from "zod";

export const publish = defineWorkflow({
  id: "publish",
  vars: z.object({ topic: z.string(), answer: z.object({ text: z.enum(["yes", "no"]) }).optional() }),
  entry: "ask",
  nodes: {
    // `to` says which nodes may follow. It is optional; with it the graph can be drawn before anything has run.
    ask: {
      to: ["decide"],
      run: ({ vars }) =>
        askUser({ prompt: `Publish "${vars.topic}"?`, choices: ["yes", "no"] }, { resultKey: "answer", nextNode: "decide" }),
    },
    decide: {
      to: ["publish"],
      run: ({ vars }) => (vars.answer?.text === "yes" ? goto("publish") : complete({ published: false, topic: vars.topic })),
    },
    publish: { to: [], run: ({ vars }) => complete({ published: true, topic: vars.topic }) },
  },
});
