/** Tools of this process: functions, with what is to be known of each to carry it out safely. */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import {
  AbstractRuntimeError,
  type EffectContext,
  type Json,
  type JsonSchema,
  type OnUncertain,
  type WaitRequest,
} from "../../index.ts";
import { checkOptions, refuse } from "../options.ts";
import type { ToolCall, ToolDescription, ToolResult } from "../tool-call.ts";
import { isObject } from "../json-object.ts";
import { whenUncertain } from "./certainty.ts";
import type { ListingExecutor } from "./executor.ts";
import { argumentsOf, type Input, inputOf } from "./input.ts";
import { withMembers } from "./layer.ts";
import { passthroughTools } from "./passthrough.ts";
import { mayTryAgain, recordable, thrownFailure, toolFailure, unknownTool } from "./result.ts";

/** How a tool is carried out. Stands beside the tool itself; what all of them have in common, in the second argument of `localTools`. */
export interface ToolSettings {
  /** Longest time to answer or to report progress, in milliseconds. What comes later is not waited for. Default: 120 s. */
  timeoutMs?: number;
  /** Carrying it out again harms nobody, as when it only reads: calls run side by side, and again after a crash. Default: false. */
  speculative?: boolean;
  /** Its calls run beside others of the same run. Default: as `speculative`; one call at a time otherwise. */
  parallel?: boolean;
  /**
   * What becomes of a call whose attempt was cut off by a crash, and that may have been carried out: the result EFFECT_UNCERTAIN, a
   * question to a person, or another attempt under the same idempotency key. Default: `"fail"`. Speculative tools are always tried again.
   */
  onUncertain?: OnUncertain;
  /** Bytes of its output as JSON, where that is less than `toolEffect` takes. */
  maxOutputBytes?: number;
}

/** A tool in this library's own form. What `run` gives is its output, what it throws is shown to the model. */
export interface PlainTool<Input> extends ToolSettings {
  description?: string;
  /** What it takes: a Standard Schema or JSON Schema. Default: any object. */
  input?: StandardSchemaV1<unknown, Input> | JsonSchema;
  /** Whether a person decides about each call, or about which. Default: false. */
  needsApproval?: boolean | ((input: Input, options: { toolCallId: string }) => boolean | PromiseLike<boolean>);
  /** Without it, its calls wait for whoever answers them, as those of `passthroughTools()`. */
  run?(input: Input, context: EffectContext): unknown;
  /** That is a tool of the AI SDK's. */
  inputSchema?: undefined;
}

/** A tool that the AI SDK's `tool()` made (versions 6 and 7), as far as it is looked at. */
export interface AiTool extends ToolSettings {
  inputSchema: object;
  // biome-ignore-start lint/suspicious/noExplicitAny: what they take is inferred where tools are written; here it is any of it.
  description?: string | ((options: any) => string);
  needsApproval?: boolean | ((input: any, options: any) => boolean | PromiseLike<boolean>);
  execute?(input: any, options: any): unknown;
  // biome-ignore-end lint/suspicious/noExplicitAny: see above
}

/** What a tool came to, whichever form it was written in. */
interface Tool extends Required<Omit<ToolSettings, "maxOutputBytes">>, Pick<ToolSettings, "maxOutputBytes"> {
  input: Input;
  describe(): Promise<ToolDescription>;
  needsApproval?: boolean | ((input: never, options: never) => boolean | PromiseLike<boolean>);
  run?(input: unknown, call: ToolCall, context: EffectContext): unknown;
}

const settingNames = ["timeoutMs", "speculative", "parallel", "onUncertain", "maxOutputBytes"];
const plainNames = [...settingNames, "description", "input", "needsApproval", "run"];
const longestTimeoutMs = 2 ** 31 - 1;

/**
 * An executor of tools in this process: a map from names to tools in this library's form, `{ description, input, run }`, or to what the
 * AI SDK's `tool()` makes; settings may stand beside either, as in `{ ...tool({ ... }), speculative: true }`. Arguments are checked before a
 * tool sees them.
 *
 * @param defaults Settings for tools that do not say otherwise.
 * @throws INVALID_OPTION
 */
export function localTools<Inputs>(
  tools: { readonly [Name in keyof Inputs]: PlainTool<Inputs[Name]> | AiTool },
  defaults: ToolSettings = {},
): ListingExecutor {
  if (!isObject(tools)) refuse("tools", "localTools() takes an object of tools, by their names");
  checkOptions(defaults, settingNames, "localTools()");
  // A map, since a model may ask for a tool "constructor".
  const known = new Map<string, Tool>();
  for (const [name, given] of Object.entries<unknown>(tools)) known.set(name, readTool(name, given, defaults));
  let described: Promise<ToolDescription[]> | undefined;

  return {
    async execute(call, context) {
      const tool = known.get(call.name);
      // The code that an earlier attempt ran under may have had a tool that this one has not.
      const isHarmless = tool !== undefined && (tool.speculative || !tool.run);
      const doubt = isHarmless ? undefined : whenUncertain(call, context, tool?.onUncertain ?? "fail");
      if (doubt) return doubt;
      return tool ? attempt(tool, call, context) : unknownTool(call, [...known.keys()]);
    },
    async check(call) {
      const read = await readCall(known, call);
      return "result" in read ? read.result : undefined;
    },
    async needsApproval(call) {
      const needed = known.get(call.name)?.needsApproval;
      if (typeof needed !== "function") return needed === true;
      const read = await readCall(known, call);
      return "value" in read && needed(read.value as never, { toolCallId: call.callId, messages: [], context: {} } as never);
    },
    speculative: ({ name }) => known.get(name)?.speculative,
    exclusive: ({ name }) => (known.get(name)?.parallel === false ? "tools" : undefined),
    async tools() {
      described ??= Promise.all([...known.values()].map((tool) => tool.describe()));
      return [...(await described)];
    },
  };
}

/** What the tool is to be given, or the result that says why it is not called. */
async function readCall(known: ReadonlyMap<string, Tool>, call: ToolCall): Promise<{ value: unknown } | { result: ToolResult }> {
  const tool = known.get(call.name);
  return tool ? readInput(tool, call) : { result: unknownTool(call, [...known.keys()]) };
}

async function readInput(tool: Tool, call: ToolCall): Promise<{ value: unknown } | { result: ToolResult }> {
  const given = argumentsOf(call);
  const read = "problem" in given ? given : await tool.input.read(given.value);
  if ("value" in read) return read;
  return { result: toolFailure(call, "TOOL_ARGUMENTS_INVALID", { tool: call.name, problem: read.problem }) };
}

async function attempt(tool: Tool, call: ToolCall, context: EffectContext): Promise<ToolResult | WaitRequest> {
  const { run, timeoutMs, maxOutputBytes } = tool;
  const late = new AbortController();
  const signal = AbortSignal.any([context.signal, late.signal]);
  let watch = (): void => undefined;
  const progress = (note?: string): void => {
    context.progress(note);
    watch();
  };
  let cancelTimer = (): void => undefined;
  const overdue = new Promise<never>((_, reject) => {
    watch = () => {
      cancelTimer();
      const timer = context.clock.setTimer(() => {
        const error = new AbstractRuntimeError("TOOL_TIMEOUT", { tool: call.name, timeoutMs });
        late.abort(error);
        reject(error);
      }, timeoutMs);
      cancelTimer = () => timer.cancel();
    };
  });
  watch();
  try {
    // A schema may take its time, too.
    const read = await Promise.race([readInput(tool, call), overdue]);
    if ("result" in read) return read.result;
    if (!run) return await passthroughTools().execute(call, context);
    const given = run(read.value, call, withMembers(context, { signal, progress }));
    const output = await Promise.race([last(given, signal), overdue]);
    const made: ToolResult = { name: call.name, callId: call.callId, success: true, output: output as Json, error: null };
    return maxOutputBytes === undefined ? made : await recordable(call, made, maxOutputBytes, context);
  } catch (error) {
    // What was cut off, and what may be tried again, is no result.
    if (context.signal.aborted || mayTryAgain(error)) throw error;
    return thrownFailure(call, error);
  } finally {
    cancelTimer();
    watch = () => undefined;
  }
}

/** The last of what an AI SDK tool gives piece by piece, or what it gives. */
async function last(given: unknown, signal: AbortSignal): Promise<unknown> {
  if (typeof given !== "object" || given === null || !(Symbol.asyncIterator in given)) return given;
  let latest: unknown;
  for await (const piece of given as AsyncIterable<unknown>) {
    latest = piece;
    // Nobody waits for the rest.
    if (signal.aborted) break;
  }
  return latest;
}

function readTool(name: string, given: unknown, defaults: ToolSettings): Tool {
  const where = `tool "${name}"`;
  if (name === "" || typeof given !== "object" || given === null)
    refuse(name, `${where} is none: give { description, input, run }, or what the AI SDK's tool() makes`);
  const isAi = "inputSchema" in given;
  if ((isAi || "execute" in given) && ("run" in given || "input" in given))
    refuse(name, `${where} mixes two forms: give { input, run }, or { inputSchema, execute } as the AI SDK's tool() does`);
  if (!isAi) checkOptions(given, plainNames, where);
  const settings = readSettings({ ...defaults, ...defined(given) }, where);
  const { description, needsApproval } = given as PlainTool<unknown> | AiTool;
  if (needsApproval !== undefined && typeof needsApproval !== "boolean" && typeof needsApproval !== "function")
    refuse("needsApproval", `${where}: needsApproval is true, false, or a function of the input`);
  const run = isAi ? aiRun(given as AiTool, where) : plainRun(given as PlainTool<unknown>, where);
  const input = inputOf(isAi ? (given as AiTool).inputSchema : (given as PlainTool<unknown>).input, name);
  return {
    ...settings,
    input,
    async describe() {
      const said = typeof description === "function" ? description({ context: {} }) : description;
      return { name, ...(said === undefined ? {} : { description: said }), parameters: await input.describe() };
    },
    ...(needsApproval === undefined ? {} : { needsApproval }),
    ...(run === undefined ? {} : { run }),
  };
}

function plainRun(given: PlainTool<unknown>, where: string): Tool["run"] {
  if (given.run !== undefined && typeof given.run !== "function") refuse("run", `${where}: run is a function`);
  return given.run && ((input, _, context) => given.run?.(input, context));
}

function aiRun(given: AiTool, where: string): Tool["run"] {
  const { type } = given as { type?: unknown };
  if (!given.execute) {
    if (type === "provider" || type === "provider-defined")
      refuse("tools", `${where} is carried out by the model's provider: give it to the model, not here`);
    return undefined;
  }
  return (input, { callId }, { signal, idempotencyKey, runId }) => {
    const context = { idempotencyKey, runId };
    // Of these, version 6 knows `experimental_context`, and version 7 `context`.
    return given.execute?.(input, {
      toolCallId: callId,
      messages: [],
      abortSignal: signal,
      context,
      experimental_context: context,
    });
  };
}

function readSettings(given: ToolSettings, where: string): Omit<Tool, "input" | "describe"> {
  const {
    timeoutMs = 120_000,
    speculative = false,
    parallel = speculative,
    onUncertain = "fail",
    maxOutputBytes = Infinity,
  } = given;
  if (!(timeoutMs > 0 && timeoutMs <= longestTimeoutMs))
    refuse("timeoutMs", `${where}: timeoutMs is a number of milliseconds above 0, up to 24 days`);
  if (typeof speculative !== "boolean") refuse("speculative", `${where}: speculative is true or false`);
  if (typeof parallel !== "boolean") refuse("parallel", `${where}: parallel is true or false`);
  if (!["retry", "fail", "ask"].includes(onUncertain)) refuse("onUncertain", `${where}: onUncertain is "fail", "ask" or "retry"`);
  if (maxOutputBytes !== undefined && !(maxOutputBytes > 0))
    refuse("maxOutputBytes", `${where}: maxOutputBytes is a number of bytes above 0`);
  return { timeoutMs, speculative, parallel, onUncertain, ...(maxOutputBytes === undefined ? {} : { maxOutputBytes }) };
}

/** Members that are undefined do not hide a default. */
function defined(given: object): ToolSettings {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}
