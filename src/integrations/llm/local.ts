/** Models of this process: whatever the AI SDK has a provider for. */
import { AbstractRuntimeError, nearest, permanent, type EffectContext } from "../../index.ts";
import { checkOptions, refuse } from "../options.ts";
import type { LlmClient } from "./client.ts";
import { llmError } from "./llm-error.ts";
import { callModel, type LanguageModel, type ModelAnswer } from "./model.ts";
import { callOptions } from "./prompt.ts";
import type { LlmRequest } from "./request.ts";
import { Secrets } from "./secrets.ts";

export interface LocalLlmOptions {
  /** Models of the AI SDK (`ai` 6 or 7), by the names that requests have for them; or the one that answers all. */
  models: Readonly<Record<string, LanguageModel>> | LanguageModel;
  /** The name of the model for requests that name none. Default: the only one. */
  default?: string;
}

/** Calls models in this process. Keys are the business of whoever made the models; a provider's own attempts are not used. @throws INVALID_OPTION */
export function localLlm(options: LocalLlmOptions): LlmClient {
  checkOptions(options, ["models", "default"], "localLlm()");
  const models = modelsOf(options.models);
  const [only] = models.keys();
  const { default: usual = models.size === 1 ? only : undefined } = options;
  if (usual !== undefined && !models.has(usual)) {
    const suggestion = nearest(usual, models.keys());
    refuse("default", `localLlm({ default }) names "${usual}", which is not among its models`, suggestion);
  }
  return {
    model: usual,
    async generate(request: LlmRequest, context: EffectContext): Promise<ModelAnswer> {
      const name = request.model ?? usual;
      const model = name === undefined ? undefined : models.get(name);
      if (!model) throw unknownModel(name ?? "", [...models.keys()]);
      const emit = request.stream ? context.stream : undefined;
      try {
        return await callModel(model, { ...callOptions(request, model.specificationVersion), abortSignal: context.signal }, emit);
      } catch (error) {
        throw llmError(error, { model: model.modelId, secrets: new Secrets(), now: context.clock.now() });
      }
    },
  };
}

function unknownModel(model: string, known: string[]): Error {
  const suggestion = nearest(model, known);
  return permanent(new AbstractRuntimeError("LLM_MODEL_UNKNOWN", { model, known, ...(suggestion ? { suggestion } : {}) }));
}

/** A map, since names may come from anywhere and an object has more of them than its own. */
function modelsOf(given: LocalLlmOptions["models"]): Map<string, LanguageModel> {
  if (typeof given === "string" || typeof given !== "object" || given === null)
    refuse("models", "localLlm() needs models: a language model of the AI SDK, or several by their names");
  const models = isModel(given) ? new Map([[given.modelId, given]]) : new Map(Object.entries(given));
  if (models.size === 0) refuse("models", "localLlm() needs at least one model");
  for (const [name, model] of models) {
    if (!isModel(model)) refuse("models", `localLlm(): "${name}" is not a language model of the AI SDK`);
    const version: string = model.specificationVersion;
    if (version !== "v3" && version !== "v4")
      refuse("models", `localLlm(): "${name}" has specification ${version}; the providers for ai 6 and 7 have v3 and v4`);
  }
  return models;
}

export function isModel(given: unknown): given is LanguageModel {
  const { specificationVersion, doStream, doGenerate } = (given ?? {}) as Partial<LanguageModel>;
  return typeof specificationVersion === "string" && typeof doStream === "function" && typeof doGenerate === "function";
}
