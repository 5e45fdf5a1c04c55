// A supervisor and three agents. The supervisor asks a model for three questions, gives each to an agent of its own, the very one of
// agent.ts, and has their answers put together. All four are runs that survive by themselves, and spend from one budget.
import { complete, defineWorkflow, fanOut, type } from "abstractruntime";
import { createLocalRuntime, llmCall, type LlmResult } from "abstractruntime/llm";
import { memoryStore } from "abstractruntime/memory";
import type { ToolDescription } from "abstractruntime/tools";
import { z } from "zod";
import { modelOr } from "./agent/model.ts";
import { travelScript, travelTools } from "./agent/travel.ts";
import { agent } from "./agent.ts";

const Plan = z.object({ questions: z.array(z.string()).length(3) });

const supervisor = defineWorkflow({
  id: "supervisor",
  vars: type<{
    goal: string;
    tools: ToolDescription[];
    plan?: LlmResult<z.infer<typeof Plan>>;
    answers?: { status: string; output?: { answer: string | null } }[];
    report?: LlmResult;
  }>(),
  entry: "plan",
  effects: [llmCall],
  nodes: {
    plan: ({ vars }) =>
      llmCall(
        { system: "You plan trips: name three questions that have to be looked up.", prompt: vars.goal, output: Plan },
        { resultKey: "plan", nextNode: "delegate" },
      ),
    delegate: ({ vars: { plan, tools } }) => {
      const items = (plan?.data.questions ?? []).map((content) => ({ messages: [{ role: "user" as const, content }], tools }));
      return fanOut(agent, { items, onFailure: "collect" }, { resultKey: "answers", nextNode: "write" });
    },
    write: ({ vars: { goal, plan, answers = [] } }) => {
      const known = answers.map(({ output }, i) => `${plan?.data.questions[i]} ${output?.answer ?? "Nobody knows."}`);
      const prompt = [goal, ...known].join("\n");
      return llmCall({ system: "You write itineraries of one sentence.", prompt }, { resultKey: "report", nextNode: "done" });
    },
    done: ({ vars }) => complete({ report: vars.report?.content ?? null }),
  },
});

await using runtime = await createLocalRuntime({
  workflows: [supervisor, agent],
  store: memoryStore(),
  llm: modelOr(travelScript),
  tools: travelTools,
});
const vars = { goal: "A Saturday in Lyon, from Paris.", tools: await travelTools.tools() };
const { runId } = await runtime.start(supervisor, { vars, budget: { calls: 30, tokens: 100_000 } });
const output = await runtime.result(runId);
const { children } = await runtime.tree(runId);
for (const { run } of children) console.log("agent:", (await runtime.get(run.runId)).output);
for (const { name, used, limit } of await runtime.budgets(runId)) console.log(`${name}: ${used} of ${limit}`);
console.log("output:", output);
