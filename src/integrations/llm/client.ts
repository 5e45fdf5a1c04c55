/** Who answers model calls. `localLlm` and `remoteLlm` make one; any object with this method is one. */
import type { EffectContext } from "../../index.ts";
import type { LlmRequest } from "./request.ts";
import type { LlmResult } from "./result.ts";

export interface LlmClient {
  /** What answers requests that name no model. */
  readonly model?: string | undefined;
  /**
   * Makes one call, without attempts of its own: the runtime makes those. With `request.output` it asks for JSON that fits the schema; what
   * comes is parsed and checked by `llmEffect`.
   *
   * @throws LLM_UNAVAILABLE, LLM_REFUSED, or anything else: that is tried again, unless it says `retryable: false`.
   */
  generate(request: LlmRequest, context: EffectContext): Promise<Omit<LlmResult, "data">>;
}
