// An agent: a model that may call tools, as a graph of four nodes. It pays the invoices in a folder, and asks before each payment.
//
//   npm run example:agent              without a key, with a scripted model; started again after Ctrl-C or kill -9, it goes on
//   npm run example:agent -- --allow   answers "allow" to whatever it asks; --deny denies
//
// With OPENAI_API_KEY, or OPENAI_BASE_URL for any server that speaks the same language, a real model plays the part; MODEL names it.
import { fileURLToPath } from "node:url";
import { complete, defineWorkflow, goto, type } from "abstractruntime";
import { assistantMessage, createLocalRuntime, llmCall, type LlmResult, type Message, toolMessages } from "abstractruntime/llm";
import { mcpTools } from "abstractruntime/mcp";
import { combineTools, localTools, type ToolDescription, type ToolResult, toolCall, toolCalls } from "abstractruntime/tools";
import { z } from "zod";
import { type Bank, fileBank } from "./agent/bank.ts";
import { payInvoices } from "./agent/invoices-script.ts";
import { modelOr } from "./agent/model.ts";
import { talk } from "./agent/terminal.ts";

/** Think, act, observe, and think again, until the model has no more to ask of its tools. */
export const agent = defineWorkflow({
  id: "agent",
  vars: type<{ messages: Message[]; tools: ToolDescription[]; reply?: LlmResult; results?: ToolResult[] }>(),
  entry: "think",
  effects: [llmCall, toolCall],
  nodes: {
    think: ({ vars: { messages, tools } }) => llmCall({ messages, tools }, { resultKey: "reply", nextNode: "decide" }),
    decide: ({ vars: { messages, reply } }) => {
      if (!reply) return goto("think"); // For the compiler, which does not know that it was asked.
      messages.push(assistantMessage(reply));
      return reply.toolCalls.length > 0 ? goto("act") : complete({ answer: reply.content });
    },
    act: ({ vars }) => toolCalls(vars.reply?.toolCalls ?? [], { resultKey: "results", nextNode: "observe" }),
    observe: ({ vars: { messages, results = [] } }) => {
      messages.push(...toolMessages(results));
      return goto("think");
    },
  },
});

/** Two tools of our own, over a bank. */
export const ownTools = (bank: Bank) =>
  localTools({
    exchange: {
      description: "Converts US dollars to euros at today's rate.",
      input: z.object({ usd: z.number() }),
      speculative: true, // It only computes: calls may run side by side, and again after a crash.
      run: ({ usd }) => ({ eur: Math.round(usd * 92) / 100 }),
    },
    pay: {
      description: "Transfers euros to somebody. This cannot be undone.",
      input: z.object({ to: z.string(), eur: z.number().positive() }),
      needsApproval: true,
      onUncertain: "retry", // The bank knows a payment by its key: asked again after a crash, it has paid once.
      run: ({ to, eur }, { idempotencyKey }) => bank.pay(idempotencyKey, to, eur),
    },
  });

/** And those of an MCP server, a process of its own, which may look into one folder. */
const folder = fileURLToPath(new URL("agent/invoices", import.meta.url));
const server = fileURLToPath(import.meta.resolve("@modelcontextprotocol/server-filesystem/dist/index.js"));
export const invoices = { name: "files", command: process.execPath, args: [server, folder] };
export const toPay: Message[] = [{ role: "user", content: `Pay the invoices in ${folder}` }];

async function main() {
  await using files = mcpTools(invoices);
  const tools = combineTools(ownTools(fileBank(".abstractruntime/payments.jsonl")), files);
  // Runs are kept in ./.abstractruntime/runs.db. One that was cut off goes on as soon as that is opened.
  await using runtime = await createLocalRuntime({ workflows: [agent], llm: modelOr(payInvoices), tools });
  const { runs } = await runtime.list({ workflowId: "agent", status: ["running", "waiting"] });
  const { runId } = runs[0] ?? (await runtime.start(agent, { vars: { messages: toPay, tools: await tools.tools() } }));
  console.log(`Run ${runId}. End it whenever you like, with Ctrl-C or kill -9: the same command goes on with it.`);
  // What ends it otherwise (a failure, code that does not fit the run) is told by its result.
  await Promise.all([talk(runtime, runId), runtime.result(runId)]);
}

// Other examples import the graph.
if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
