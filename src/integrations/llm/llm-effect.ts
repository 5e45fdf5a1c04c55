/** The handler of `llm_call`: any client, with attempts, streaming, budgets and checks of the runtime's. */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import {
  AbstractRuntimeError,
  type DefinedEffect,
  defineEffect,
  isError,
  permanent,
  type Json,
  type PolicyOptions,
  type WaitRequest,
} from "../../index.ts";
import { spend } from "../budget.ts";
import { checkOptions, refuse } from "../options.ts";
import type { LlmClient } from "./client.ts";
import { actualOf, estimateOf, type Prices } from "./cost.ts";
import type { ModelAnswer } from "./model.ts";
import { checkReferences, dataOf } from "./output.ts";
import { type LlmRequest, readRequest } from "./request.ts";
import type { LlmResult } from "./result.ts";
import { withTexts } from "./texts.ts";

export interface LlmEffectOptions {
  /** Default: 5 attempts, a second apart and doubling up to a minute, 10 minutes each. A server's Retry-After counts where it is longer, up to an hour. */
  policy?: PolicyOptions;
  /** Whether whoever watches a run sees answers as they come. Default: true. */
  stream?: boolean;
  /** What models cost, for budgets in `usd`: a run that has one fails without them. `{}`: calls cost nothing. */
  prices?: Prices;
}

/** For `createRuntime({ effects })`. @throws INVALID_OPTION */
export function llmEffect(client: LlmClient, options: LlmEffectOptions = {}): DefinedEffect<"llm_call", Json, LlmResult<Json>> {
  if (typeof client?.generate !== "function") refuse("client", "llmEffect() needs a client, such as localLlm() makes");
  checkOptions(options, ["policy", "stream", "prices"], "llmEffect()");
  const { policy, stream = true, prices } = options;
  checkPrices(prices);
  const made = defineEffect("llm_call", {
    title: "model call",
    input: requests,
    speculative: true,
    // Of an answer with many tool calls, nodes look at these.
    keepsShape: true,
    policy: { maxAttempts: 5, ...policy, backoff: { initialMs: 1000, maxMs: 60_000, ...policy?.backoff } },
    async run(asked, context): Promise<LlmResult<Json> | WaitRequest> {
      const request: LlmRequest = { ...(await withTexts(asked, () => context.artifacts)), stream };
      const { model = client.model } = request;
      const { limits } = context.budget;
      if (limits.includes("usd") && !prices) throw permanent(unpriced());
      const answer = await spend(
        context,
        limits.length > 0 ? estimateOf(request, client.model, prices) : {},
        () => client.generate(request, context),
        (given) => actualOf(given.usage, [model, given.model], prices),
      );
      if (!isAnswer(answer)) return answer;
      try {
        const data = request.output ? await dataOf(answer, request.output) : null;
        await checkReferences({ ...answer, data }, () => context.artifacts);
        return { ...answer, data };
      } catch (error) {
        // It is of no use, and was paid for all the same.
        if (isError(error, "LLM_OUTPUT_INVALID")) error.details = { usage: { ...answer.usage } };
        throw error;
      }
    },
  });
  return made as unknown as DefinedEffect<"llm_call", Json, LlmResult<Json>>;
}

function isAnswer(given: ModelAnswer | WaitRequest): given is ModelAnswer {
  return "toolCalls" in given;
}

/** A budget that no call counts towards would let a run spend without end. */
function unpriced(): Error {
  const problem =
    "the run has a budget in dollars, and llmEffect() does not know what calls cost: give it prices, or {} for nothing";
  return new AbstractRuntimeError("INVALID_OPTION", { option: "prices", problem });
}

function checkPrices(prices: Prices = {}): void {
  for (const [model, price] of Object.entries(prices))
    for (const amount of [price?.inputPerMillion, price?.outputPerMillion])
      if (!(amount >= 0 && Number.isFinite(amount)))
        refuse("prices", `prices["${model}"] is not { inputPerMillion, outputPerMillion }, in dollars from 0`);
}

/** As a Standard Schema, so that what is wrong with a payload is said before anything is sent. */
const requests: StandardSchemaV1<Json, Omit<LlmRequest, "stream">> = {
  "~standard": {
    version: 1,
    vendor: "abstractruntime",
    validate(payload) {
      const { request, problems } = readRequest(payload as Json);
      return problems.length > 0 ? { issues: problems.map((message) => ({ message })) } : { value: request };
    },
  },
};
