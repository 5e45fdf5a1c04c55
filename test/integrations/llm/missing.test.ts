// Models of this process need no package of the AI SDK's; a remote one without its package says what to install.
import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

const program = `
import { registerHooks } from "node:module";
registerHooks({
  resolve(specifier, context, next) {
    if (specifier !== "ai" && !specifier.startsWith("@ai-sdk/")) return next(specifier, context);
    throw Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" });
  },
});
const { complete, createRuntime, defineWorkflow } = await import("abstractruntime");
const { createLocalRuntime, createRemoteRuntime, llmCall, llmEffect, remoteLlm } = await import("abstractruntime/llm");
const { memoryStore } = await import("abstractruntime/memory");
const flow = defineWorkflow({
  id: "ask",
  effects: [llmCall],
  entry: "ask",
  nodes: {
    ask: () => llmCall({ prompt: "Hi" }, { resultKey: "got", nextNode: "end" }),
    end: ({ vars }) => complete({ said: vars.got.content }),
  },
});
const finish = { type: "finish", usage: { inputTokens: {}, outputTokens: {} }, finishReason: { unified: "stop" } };
const llm = {
  specificationVersion: "v4", provider: "own", modelId: "own", doGenerate() {},
  doStream: async () => ({ stream: ReadableStream.from([{ type: "text-delta", id: "0", delta: "Hello" }, finish]) }),
};
await using local = await createLocalRuntime({ workflows: [flow], store: memoryStore(), llm });
console.log(JSON.stringify((await local.run(flow)).output));
const client = remoteLlm({ baseUrl: "http://127.0.0.1:9/v1", model: "m" });
console.log(await createRemoteRuntime({ workflows: [flow], store: memoryStore(), llm: client }).catch((error) => error.message));
await using remote = await createRuntime({ workflows: [flow], store: memoryStore(), effects: [llmEffect(client)] });
console.log((await remote.run(flow)).error.message);
`;

test("what is missing is named when a runtime is made, and otherwise when it is needed", () => {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [...process.execArgv, "--input-type=module", "--eval", program],
    {
      encoding: "utf8",
    },
  );
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toMatch(/^\{"said":"Hello"\}\n(INVALID_OPTION: .*run `npm install @ai-sdk\/openai-compatible`.*\n){2}$/);
});
