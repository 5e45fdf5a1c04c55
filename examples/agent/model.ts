// The model of the examples: a scripted one, or a real one where the environment names a server or has a key.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { type Script, scriptedModel } from "./scripted-model.ts";

export function modelOr(script: Script) {
  const { OPENAI_API_KEY: apiKey, OPENAI_BASE_URL: baseURL = "https://api.openai.com/v1", MODEL = "gpt-5-mini" } = process.env;
  if (apiKey === undefined && process.env.OPENAI_BASE_URL === undefined) return scriptedModel(script, { msPerWord: 20 });
  return createOpenAICompatible({ name: "openai", baseURL, ...(apiKey !== undefined && { apiKey }), includeUsage: true })(MODEL);
}
