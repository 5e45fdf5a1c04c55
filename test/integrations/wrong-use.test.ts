// What beginners get wrong: refused at the door, in a sentence that says what is wanted.
import { expect, test } from "vitest";
import { complete, createRuntime, defineWorkflow } from "../../src/index.ts";
import { createLocalRuntime, llmCall, llmEffect, type LlmClient, localLlm, remoteLlm } from "../../src/integrations/llm/index.ts";
import { combineTools, localTools, toolCall, toolCalls, toolEffect, withApproval } from "../../src/integrations/tools/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { remoteTools, serveToolWorker, toolCallback } from "../../src/worker/index.ts";

const client: LlmClient = {
  generate: async () => ({ content: "", toolCalls: [], usage: null, model: "m", finishReason: "stop" }),
};
const tools = localTools({ nap: { run: () => 1 } });

test.each<[what: string, wrong: (...given: never[]) => unknown, said: RegExp]>([
  ["localLlm()", localLlm, /localLlm\(\) takes an object of options/],
  ["remoteLlm()", remoteLlm, /remoteLlm\(\) takes an object of options/],
  ["localTools()", localTools, /localTools\(\) takes an object of tools/],
  ["a list of tools", () => localTools([] as never), /localTools\(\) takes an object of tools/],
  [
    "a tool in two forms at once",
    () => localTools({ nap: { inputSchema: {}, run: () => 1 } as never }),
    /tool "nap" mixes two forms: give \{ input, run \}, or \{ inputSchema, execute \}/,
  ],
  [
    "execute without its schema",
    () => localTools({ nap: { input: {}, execute: () => 1 } as never }),
    /tool "nap" mixes two forms/,
  ],
  ["withApproval() of nothing", () => withApproval({} as never, { needsApproval: true }), /withApproval\(\) needs an executor/],
  [
    "withApproval() without saying of what",
    () => withApproval(tools, undefined as never),
    /withApproval\(\) takes an object of options/,
  ],
  ["executors in a list", () => combineTools([tools] as never), /combineTools\(\) needs executors/],
  ["remoteTools()", remoteTools, /remoteTools\(\) takes an object of options/],
  [
    "a number as text",
    () => remoteTools({ url: "http://127.0.0.1:1", token: "x", pollMs: "50" as never }),
    /pollMs must be a number of milliseconds/,
  ],
  ["serveToolWorker()", serveToolWorker, /serveToolWorker\(\) takes an object of options/],
  ["toolCallback()", () => toolCallback({} as never, undefined as never), /toolCallback\(\) takes an object of options/],
  [
    "createLocalRuntime()",
    () => createLocalRuntime({} as never),
    /llm is a language model, what localLlm\(\) or remoteLlm\(\) takes, or a client/,
  ],
  [
    "another name for the model",
    () => createLocalRuntime({ model: client } as never),
    /llm is a language model, what localLlm\(\) or remoteLlm\(\) takes, or a client/,
  ],
  [
    "a setting beside params",
    () => llmCall({ prompt: "?", temperature: 1 } as never),
    /llmCall\(\): temperature is one of params: \{ params: \{ temperature \} \}/,
  ],
  [
    "what workflows use, given as its handler",
    () => createRuntime({ effects: [llmCall], store: memoryStore() }),
    /effects holds what says that workflows use "llm_call", and not its handler/,
  ],
  [
    "two handlers of one type",
    () => createRuntime({ effects: [toolEffect(tools), toolEffect(tools)], store: memoryStore() }),
    /effects holds two handlers of "tool_call"/,
  ],
  [
    "a handler beside that of a mode",
    () => createLocalRuntime({ llm: client, effects: [llmEffect(client)], store: memoryStore() }),
    /effects holds two handlers of "llm_call"/,
  ],
])("%s", async (_, wrong, said) => {
  const refused = await (async () => wrong())().catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: "INVALID_OPTION", message: expect.stringMatching(said) });
});

test("a misspelt name of a tool that somebody is to be asked about lets no tool run", async () => {
  let ran = 0;
  const asked = withApproval(localTools({ delete: { run: () => ran++ } }), { needsApproval: ["delte"] });
  const flow = defineWorkflow({
    id: "misspelt",
    effects: [toolCall],
    entry: "act",
    nodes: {
      act: () => toolCalls([{ name: "delete", callId: "1", arguments: {} }], { resultKey: "results", nextNode: "end" }),
      end: ({ vars }) => complete({ results: vars.results }),
    },
  });
  await using runtime = await createRuntime({ workflows: [flow], effects: [toolEffect(asked)], store: memoryStore() });
  const { output } = await runtime.run(flow);
  expect(output?.results).toMatchObject([
    { success: false, error: { message: expect.stringMatching(/names "delte", which is no tool here.*Did you mean "delete"/) } },
  ]);
  expect(ran).toBe(0);
});
