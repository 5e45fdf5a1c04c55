/** The request of a model call, as workflows make it. Which client carries it out is the runtime's to say. */
import {
  type AnswerSchema,
  type AnyEffect,
  declareEffect,
  jsonSchemaOf,
  type Requested,
  type SchemaResult,
  type WaitPlanOptions,
} from "../../index.ts";
import { checkOptions, refuse } from "../options.ts";
import type { ToolDescription } from "../tool-call.ts";
import type { Message } from "./message.ts";
import { type LlmParams, llmCallKeys, paramKinds, type ToolChoice } from "./request.ts";
import type { LlmResult } from "./result.ts";

export type LlmCallOptions<
  Schema extends AnswerSchema | undefined = AnswerSchema | undefined,
  Tools extends readonly ToolDescription[] | undefined = readonly ToolDescription[] | undefined,
> = {
  /** By the client's name for it. Default: the client's. */
  model?: string;
  /** Goes before all messages. */
  system?: string;
  /** What the model may ask for: data, without functions. Recorded with every call; a list that stands in the vars is recorded once. */
  tools?: Tools;
  /** Default: `"auto"`. */
  toolChoice?: ToolChoice;
  params?: LlmParams;
  /** What the answer must be: a Standard Schema or a JSON Schema. It is recorded as JSON Schema, and the answer checked against it. */
  output?: Schema;
} & (
  | { prompt: string; messages?: undefined }
  /** A list out of the vars (`messages: vars.messages`, or `[...vars.messages, another]`) is recorded by reference. */
  | { messages: readonly Message[]; prompt?: undefined }
);

const declared = declareEffect("llm_call");

/**
 * Asks a model. The handler is the runtime's: `createRuntime({ effects: [llmEffect(client)] })`. A model call is speculative: it may be
 * made again after a crash.
 *
 * @throws INVALID_OPTION
 */
function requestCall<
  Schema extends AnswerSchema | undefined = undefined,
  Tools extends readonly ToolDescription[] | undefined = undefined,
  const Next extends string = never,
  const Key extends string = never,
>(
  call: LlmCallOptions<Schema, Tools>,
  options?: WaitPlanOptions<Next, Key>,
): Requested<"llm_call", LlmResult<DataOf<Schema, Tools>>, Next, Key> {
  if (typeof call !== "object" || call === null) refuse("call", "llmCall() needs { prompt } or { messages }");
  for (const name of Object.keys(call))
    if (Object.hasOwn(paramKinds, name)) refuse(name, `llmCall(): ${name} is one of params: { params: { ${name} } }`);
  checkOptions(call, llmCallKeys, "llmCall()");
  const { output, ...rest } = call;
  const schema = output === undefined ? undefined : jsonSchemaOf(output);
  if (output !== undefined && schema === undefined)
    refuse("output", "llmCall(): no JSON Schema can be derived from output; give a schema whose library can, or a JSON Schema");
  const payload = Object.fromEntries(Object.entries({ ...rest, output: schema }).filter(([, value]) => value !== undefined));
  return declared(payload, options) as never;
}

/** A model that asks for tools has not answered yet. */
type DataOf<Schema, Tools> = [Schema] extends [undefined]
  ? null
  : [Tools] extends [undefined]
    ? SchemaResult<Schema>
    : SchemaResult<Schema> | null;

/** Also what workflows list in `effects`. */
export const llmCall: typeof requestCall & AnyEffect & { readonly effectType: "llm_call" } = Object.freeze(
  Object.assign(requestCall, { effectType: declared.effectType, definition: declared.definition }),
);
