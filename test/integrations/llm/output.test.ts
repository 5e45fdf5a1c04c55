// Answers as data: what `output` asks for is recorded as JSON Schema, and checked in whatever process the answer comes to.
import { complete, defineWorkflow, type } from "abstractruntime";
import { llmCall, type LlmResult, remoteLlm } from "abstractruntime/llm";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { OpenAiServer, type Script } from "../openai-server.ts";
import { after, outputOf, place, providers } from "./place.ts";

const person = z.object({ name: z.string().min(1), age: z.int().min(0) });
const ada = '{"name": "Ada", "age": 36}';
const ask = (output: object, more: object = {}) => llmCall({ prompt: "Who?", output: output as typeof person, ...more }, after);

async function asked(script: Script[], plan = () => ask(person), options: object = {}) {
  await using server = await OpenAiServer.start(...script);
  await using here = await place(remoteLlm({ baseUrl: server.url, model: "small", ...options }), plan, {
    policy: { maxAttempts: 2 },
  });
  const run = await here.ask();
  if (run.status === "waiting") await here.retry(run.runId);
  return { output: outputOf(await here.runtime.get(run.runId)), server, ledger: await here.runtime.ledger(run.runId) };
}

test.each(providers)("the schema is sent, and the data comes checked: $version", async ({ provider }) => {
  const { output, server } = await asked([{ content: [ada.slice(0, 9), ada.slice(9)] }], undefined, { provider });
  expect(output.got).toMatchObject({ data: { name: "Ada", age: 36 }, content: ada });
  expect(server.requests[0]?.body.response_format).toMatchObject({
    type: "json_schema",
    json_schema: { schema: { type: "object", required: ["name", "age"] } },
  });
});

test("a server without schemas is only told to answer with JSON", async () => {
  const { output, server } = await asked([{ content: ada }], undefined, { structuredOutputs: false });
  expect(output.got).toMatchObject({ data: { name: "Ada" } });
  expect(server.requests[0]?.body.response_format).toEqual({ type: "json_object" });
});

test("JSON in a block of Markdown is JSON", async () => {
  expect((await asked([{ content: `\n\`\`\`json\n${ada}\n\`\`\`\n` }])).output.got).toMatchObject({ data: { name: "Ada" } });
});

describe("what does not fit is tried again, and fails with a code when it never does", () => {
  const wrong: [string, string, string][] = [
    ["no JSON", "I am Ada.", "it is not JSON"],
    ["cut off", ada.slice(0, 12), "it is not JSON"],
    ["empty", "", "it is not JSON"],
    ["another shape", '{"name": "Ada", "age": "old"}', "age"],
    ["a member too many", '{"name": "Ada", "age": 36, "rank": 1}', "rank"],
    ["what cannot be recorded", '{"name": "Ada", "age": 36, "__proto__": 1}', "it is not JSON"],
    ["nested without end", `${"[".repeat(5000)}${"]".repeat(5000)}`, "it is not JSON"],
  ];
  test.each(wrong)("%s", async (_, content, problem) => {
    const { output } = await asked([{ content }]);
    expect(output.code).toBe("LLM_OUTPUT_INVALID");
    expect(output.message).toContain(problem);
    expect((await asked([{ content }, { content: ada }])).output.got).toMatchObject({ data: { name: "Ada" } });
  });
});

test("a model that asks for tools first has no data yet", async () => {
  const tool = { name: "look", parameters: { type: "object" } };
  const toolCalls = [{ id: "c1", name: "look", arguments: "{}" }];
  for (const content of [undefined, "Let me look."]) {
    const { output } = await asked([{ toolCalls, ...(content ? { content } : {}) }], () => ask(person, { tools: [tool] }));
    expect(output.got).toMatchObject({ data: null, toolCalls: [{ name: "look" }] });
  }
});

test("a schema whose pattern would backtrack for ever is cut off", async () => {
  const hostile = { type: "string", pattern: "^(a+)+$" };
  const { output } = await asked([{ content: `"${"a".repeat(60)}!"` }], () => ask(hostile));
  expect(output.code).toBe("LLM_OUTPUT_INVALID");
});

test("a schema that is none fails with a code", async () => {
  const { output } = await asked([{ content: "{}" }], () => ask({ $ref: "#/nowhere" }));
  expect(output.code).toBe("LLM_OUTPUT_INVALID");
});

test("the schema stands in the record as data", async () => {
  const { ledger } = await asked([{ content: ada }]);
  const payload = { prompt: "Who?", output: { type: "object", required: ["name", "age"] } };
  expect(ledger[1]?.data).toMatchObject({ intent: { payload } });
});

test("an output that no JSON Schema can be derived from is refused where it is written", () => {
  expect(() => llmCall({ prompt: "Hi", output: type<string>() as never })).toThrow(/no JSON Schema can be derived/);
  expect(() => llmCall({ prompt: "Hi", output: z.date() })).toThrow(/no JSON Schema can be derived/);
});

test("data is typed by its schema", () => {
  const withVars = <Vars>(vars: Vars) => ({ id: "typed", vars, effects: [llmCall], entry: "ask" as const });
  const end = () => complete();
  const fits = defineWorkflow({
    ...withVars(type<{ got?: LlmResult<{ name: string; age: number }> }>()),
    nodes: { ask: () => llmCall({ prompt: "Who?", output: person }, { resultKey: "got", nextNode: "end" }), end },
  });
  defineWorkflow({
    ...withVars(type<{ got?: LlmResult<string> }>()),
    nodes: {
      // @ts-expect-error The data is no text.
      ask: () => llmCall({ prompt: "Who?", output: person }, { resultKey: "got", nextNode: "end" }),
      end,
    },
  });
  defineWorkflow({
    ...withVars(type<{ got?: LlmResult<{ name: string; age: number }> }>()),
    nodes: {
      // @ts-expect-error A model with tools may give none.
      ask: () => llmCall({ prompt: "Who?", output: person, tools: [] }, { resultKey: "got", nextNode: "end" }),
      end,
    },
  });
  // @ts-expect-error One of the two.
  llmCall({ prompt: "Hi", messages: [] });
  expect(fits.id).toBe("typed");
});
