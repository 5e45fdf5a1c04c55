// An agent: a loop of model and tool calls. Somebody cancels it in the middle of a tool call: the call is told to stop, what it came
// to is recorded, and the workflow's `onCancel` node has the last word. The "model" here is a function; yours would call an API.
import { setTimeout } from "node:timers/promises";
import { complete, createRuntime, defineEffect, defineWorkflow, definite, goto, isError, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

type Message = { role: string; content: string };

// Asking a model again harms nobody, so this is speculative: nothing about it is ever uncertain.
const model = defineEffect("model", {
  input: type<{ messages: Message[] }>(),
  speculative: true,
  run: ({ messages }) => ({ tool: "search", query: `page ${Math.ceil(messages.length / 2)}` }),
});

const search = defineEffect("search", {
  input: type<{ query: string }>(),
  run: async ({ query }, { signal }) => {
    if (query !== "page 3") return { found: `nothing on ${query}` };
    console.log("searching", query, "for a very long time");
    underWay();
    // Pass the signal on to whoever can be stopped. `definite`: we know that it has not happened.
    await setTimeout(60_000, undefined, { signal }).catch((cause) => {
      throw definite(new Error("the search was stopped", { cause }));
    });
    return { found: "everything" };
  },
});

const agent = defineWorkflow({
  id: "agent",
  vars: type<{ messages: Message[]; call?: { tool: string; query: string }; result?: { found: string } }>(),
  entry: "think",
  onCancel: "summarize",
  effects: [model, search],
  nodes: {
    think: ({ vars }) => model({ messages: vars.messages }, { resultKey: "call", nextNode: "act" }),
    act: ({ vars }) => search({ query: vars.call?.query ?? "" }, { resultKey: "result", nextNode: "note" }),
    note: ({ vars }) => {
      vars.messages.push({ role: "assistant", content: vars.call?.query ?? "" });
      vars.messages.push({ role: "tool", content: vars.result?.found ?? "" });
      return goto("think");
    },
    summarize: ({ vars }) => complete({ toolCalls: vars.messages.filter(({ role }) => role === "tool").length }),
  },
});

const { promise: searching, resolve: underWay } = Promise.withResolvers<void>();
await using runtime = await createRuntime({ workflows: [agent], store: memoryStore() });
const { runId } = await runtime.start(agent, { vars: { messages: [{ role: "user", content: "Find everything." }] } });
await searching;
await runtime.cancel(runId, { reason: "changed my mind" });
const end = await runtime.result(runId).catch((error: unknown) => error);
if (isError(end, "RUN_CANCELLED")) console.log("cancelled:", end.fields.reason);
console.log((await runtime.get(runId)).output);
