/** What a model call may cost, before it is made, and what it did cost: for the budgets of runs. */
import type { Json, Spend } from "../../index.ts";
import type { LlmRequest } from "./request.ts";
import type { Usage } from "./result.ts";

/** In US dollars, by the names of models: as requests name them, or as providers do. A model that is not listed costs as much as the dearest that is. */
export type Prices = Readonly<Record<string, { inputPerMillion: number; outputPerMillion: number }>>;

/** Of prose in most languages, a token holds more. */
const charactersPerToken = 3;
/** Where `max_tokens` does not say how long an answer may be. */
const usualAnswer = 2_000;
const tokensOfFile = 1_000;

export function estimateOf(request: LlmRequest, usualModel: string | undefined, prices: Prices | undefined): Spend {
  const { messages, system, tools, output, params, model = usualModel } = request;
  const inputTokens = Math.ceil(lengthOf([messages, system ?? "", tools ?? [], output ?? {}] as Json) / charactersPerToken);
  const outputTokens = params.max_tokens ?? usualAnswer;
  return {
    tokens: inputTokens + outputTokens,
    calls: 1,
    ...usd({ inputTokens, outputTokens }, [model], prices),
  };
}

/** Nothing where the provider did not say: then the estimate counts. */
export function actualOf(usage: Usage | null, models: readonly (string | null | undefined)[], prices: Prices | undefined): Spend {
  return usage ? { tokens: usage.totalTokens, ...usd(usage, models, prices) } : {};
}

function usd(
  { inputTokens, outputTokens }: Pick<Usage, "inputTokens" | "outputTokens">,
  models: readonly (string | null | undefined)[],
  prices: Prices | undefined,
): { usd?: number } {
  if (!prices) return {};
  const name = models.find((model) => model != null && Object.hasOwn(prices, model));
  const known = name == null ? Object.values(prices) : [prices[name] as Prices[string]];
  const costs = known.map((price) => (inputTokens * price.inputPerMillion + outputTokens * price.outputPerMillion) / 1_000_000);
  return { usd: Math.max(0, ...costs) };
}

/** Characters of all texts in a value; a file's data is no text. */
function lengthOf(value: Json): number {
  if (typeof value === "string") return value.length;
  if (typeof value !== "object" || value === null) return 4;
  if (!Array.isArray(value) && value.type === "file") return tokensOfFile * charactersPerToken;
  let length = 0;
  for (const part of Object.values(value)) length += lengthOf(part as Json);
  return length;
}
