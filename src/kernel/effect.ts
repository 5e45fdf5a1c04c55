/**
 * Effects: the only place where a run touches the world. A definition is a typed value that nodes call to request the effect, and
 * that drivers find by its type name, in whatever process and year the run goes on.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { ArtifactAccess } from "./artifact.ts";
import type { Budget } from "./budget.ts";
import type { Clock } from "./clock.ts";
import type { Limits } from "./execute.ts";
import { checkOptions, invalidOption } from "./errors.ts";
import { nearest } from "./nearest.ts";
import type { TraceHeaders } from "./instrument.ts";
import { cloneJson, type Json, type JsonObject } from "./json.ts";
import { builtInEffects, type Effect, request, type WaitPlanOptions } from "./plan.ts";
import { type Policy, type PolicyOptions, readPolicy } from "./policy.ts";
import type { Anything, JsonCheck, Requested } from "./typing.ts";
import type { WaitRequest } from "./wait-request.ts";
import type { WaitAnswer } from "./run.ts";

/**
 * Defines an effect. The value it returns requests the effect: `charge(payload)` is a member for `all` or `any`,
 * `charge(payload, { resultKey, nextNode })` is a plan. Both only make data; `run` is called by the driver.
 *
 * @param type The name under which runs record it. After a restart the handler is found by it, so it is never renamed.
 * @throws INVALID_OPTION
 */
export function defineEffect<
  const Type extends string,
  Input = unknown,
  Payload = Input,
  Given = unknown,
  Returned extends Given | WaitRequest | Promise<Given | WaitRequest> = Given,
  Result = ResultOfRun<Returned>,
>(type: Type, definition: EffectOptions<Input, Payload, Given, Returned, Result>): DefinedEffect<Type, Payload, Result> {
  if (typeof type !== "string" || type === "" || type.length > 200) {
    refuse("type", "defineEffect() needs a type name of 1 to 200 characters");
  }
  if ((builtInEffects as readonly string[]).includes(type))
    refuse("type", `effect "${type}" is built in; choose another type name`);
  const where = `defineEffect("${type}")`;
  if (typeof definition !== "object" || definition === null) refuse("definition", `${where} needs { run }`);
  checkOptions(
    definition,
    [
      "input",
      "output",
      "policy",
      "onUncertain",
      "speculative",
      "exclusive",
      "transactional",
      "keepsShape",
      "playedBack",
      "undo",
      "run",
      "title",
    ],
    where,
  );
  const { input, output, onUncertain = "retry", speculative = false, exclusive, transactional = false } = definition;
  const { keepsShape = false, playedBack, undo, run, title } = definition;
  if (typeof run !== "function") refuse("run", `${where} needs a run function`);
  if (!uncertainties.includes(onUncertain)) {
    refuse(
      "onUncertain",
      `${where}: onUncertain is "retry", "fail" or "ask", not "${onUncertain}"`,
      nearest(String(onUncertain), uncertainties),
    );
  }
  if (typeof speculative !== "boolean" && typeof speculative !== "function")
    refuse("speculative", `${where}: speculative is true, false, or a function of the payload`);
  if (exclusive !== undefined && typeof exclusive !== "function")
    refuse("exclusive", `${where}: exclusive is a function of the payload`);
  if (typeof transactional !== "boolean") refuse("transactional", `${where}: transactional is true or false`);
  if (typeof keepsShape !== "boolean") refuse("keepsShape", `${where}: keepsShape is true or false`);
  if (playedBack !== undefined && typeof playedBack !== "function")
    refuse("playedBack", `${where}: playedBack is a function of a recorded result and a payload`);
  if (transactional && speculative) refuse("speculative", `${where}: an effect is transactional or speculative, not both`);
  if (transactional && definition.onUncertain !== undefined)
    refuse("onUncertain", `${where}: a transactional effect is never uncertain, so it has no onUncertain`);
  if (undo !== undefined && typeof undo !== "function")
    refuse("undo", `${where}: undo is an effect, or a function that requests one`);
  for (const [name, schema] of Object.entries({ input, output })) {
    if (schema !== undefined && !isStandardSchema(schema)) refuse(name, `${where}: ${name} is a Standard Schema, or type<T>()`);
  }
  const made: EffectDefinition = {
    type,
    input: input as StandardSchemaV1 | undefined,
    output: output as StandardSchemaV1 | undefined,
    policy: readPolicy(
      transactional ? { timeoutMs: transactionMs, ...definition.policy } : definition.policy,
      `the policy of effect "${type}"`,
    ),
    onUncertain,
    speculative: speculative as EffectDefinition["speculative"],
    exclusive: exclusive && ((payload) => excluding(exclusive, payload)),
    transactional,
    keepsShape,
    playedBack: playedBack as EffectDefinition["playedBack"],
    undo: undo as EffectDefinition["undo"],
    run: run as EffectDefinition["run"],
    title,
  };
  return effectOf(made);
}

/**
 * Says that workflows use an effect whose handler the runtime has, as an effect of its own with the same type: a model, a tool, what
 * differs between processes. A run that requests one in a process without a handler is blocked with EFFECT_UNKNOWN.
 *
 * @throws INVALID_OPTION
 */
export function declareEffect<const Type extends string, Payload = Anything, Result = Anything>(
  type: Type,
): DefinedEffect<Type, Payload, Result> {
  const { definition } = defineEffect(type, { run: () => null });
  return effectOf({ ...definition, declared: true });
}

function effectOf(definition: EffectDefinition): Anything {
  const build = (payload: unknown, options?: WaitPlanOptions) =>
    request(definition.type, payload === undefined ? {} : payload, options);
  return Object.freeze(Object.assign(build, { effectType: definition.type, definition: Object.freeze(definition) }));
}

/** Asked wherever a run is driven: one that throws there would stop the run each time. */
function excluding(exclusive: (payload: Json) => string | undefined, payload: Json): string | undefined {
  try {
    return exclusive(payload);
  } catch {
    // Whoever cannot say beside whom it may run does not run beside others of its kind.
    return "";
  }
}

/** Whether running this request again harms nobody. */
export function isSpeculative({ speculative }: EffectDefinition, payload: () => Json): boolean {
  if (typeof speculative !== "function") return speculative;
  try {
    return speculative(cloneJson(payload())) === true;
  } catch {
    // Whoever cannot say that it is harmless has not said so.
    return false;
  }
}

export interface EffectOptions<Input, Payload, Given, Returned, Result> {
  /** What a payload must be: a Standard Schema or `type<T>()`. Payloads are recorded as given and parsed before each attempt. Default: anything. */
  input?: StandardSchemaV1<Payload, Input> & JsonCheck<Payload, "payload">;
  /** What the result is, for handlers that wait or whose return type says too little. Default: inferred from `run`. Where it is one of several texts, `run` says `as const`. */
  output?: StandardSchemaV1<Given, Result> & JsonCheck<Result, "result">;
  /** Attempts, backoff and timeout for definite failures. Default: 3 attempts, 200 ms apart and doubling, 10 minutes each. */
  policy?: PolicyOptions;
  /**
   * What to do when an attempt may or may not have happened: again under the same idempotency key, fail with EFFECT_UNCERTAIN, or ask
   * a person. Default: `"retry"`.
   */
  onUncertain?: OnUncertain;
  /** Running it again, even with another input, harms nobody: reads, model calls, computation. Said of all, or by the payload as recorded; a function that throws says no. Default: false. */
  speculative?: boolean | ((payload: Json) => boolean);
  /**
   * Of the requests of one run for which this gives the same text, one executes at a time; the others begin when it has settled, or waits,
   * or is to be tried again in more than a minute. Default: all that are open execute together.
   */
  exclusive?: (payload: Json) => string | undefined;
  /**
   * The handler gets a transaction of the store, as `context.transaction`: what it writes there and the record of its outcome stand
   * together or not at all, so that it happens exactly once. What it does elsewhere is not part of that. Its attempts have 10 s, unless
   * `policy.timeoutMs` says otherwise: other writers wait meanwhile. Only over SQLite files and Postgres. Default: false.
   */
  transactional?: boolean;
  /**
   * Of a result that is too large for the ledger, only long texts become artifacts. Otherwise it is put there as a whole if it is too large
   * without any such text, and what reads it finds a reference. Default: false.
   */
  keepsShape?: boolean;
  /**
   * For replays in which it is requested with another payload: what was recorded, as the result of this request. Say so where a result
   * repeats something of its payload. Default: as it was recorded.
   */
  playedBack?: (recorded: NoInfer<Result>, payload: NoInfer<Payload>) => NoInfer<Result>;
  /**
   * Undoes it. Should the run fail or be cancelled after this effect was completed, the effect that `undo` requests is carried out,
   * the last completed first. An effect that takes `{ payload, result }` stands here as it is; one that another function requests is
   * to be among the workflow's `effects`. Default: nothing to undo.
   */
  undo?: (done: { payload: NoInfer<Payload>; result: NoInfer<Result> }) => Effect;
  /** Carries the effect out: returns the result (JSON; undefined becomes null), throws, or returns `wait(...)`. */
  run: (input: Input, context: EffectContext) => Returned & ResultCheck<Returned>;
  /** For people, in dashboards. Default: the type. */
  title?: string;
}

/** A transaction keeps others waiting, so an attempt has less time than elsewhere. */
const transactionMs = 10_000;

export type OnUncertain = "retry" | "fail" | "ask";
const uncertainties: readonly string[] = ["retry", "fail", "ask"];

/** An effect as a typed value: call it in a node. */
export interface DefinedEffect<Type extends string, Payload, Result> extends AnyEffect {
  <const Next extends string = never, const Key extends string = never>(
    payload: Payload,
    options?: WaitPlanOptions<Next, Key>,
  ): Requested<Type, Result, Next, Key>;
  readonly effectType: Type;
}

/** Any effect made by `defineEffect`. */
export interface AnyEffect {
  readonly effectType: string;
  readonly definition: EffectDefinition;
}

/** What drivers use: options checked, defaults filled in. */
export interface EffectDefinition {
  readonly type: string;
  readonly input?: StandardSchemaV1;
  readonly output?: StandardSchemaV1;
  readonly policy: Policy;
  readonly onUncertain: OnUncertain;
  readonly speculative: boolean | ((payload: Json) => boolean);
  readonly exclusive?: (payload: Json) => string | undefined;
  readonly transactional: boolean;
  readonly keepsShape?: boolean;
  readonly playedBack?: (recorded: Json, payload: Json) => Json;
  /** Its handler is the runtime's. */
  readonly declared?: true;
  readonly undo?: (done: { payload: Json; result: Json }) => Effect;
  readonly run: (input: unknown, context: EffectContext) => unknown;
  readonly title?: string;
}

/** What a handler knows of the attempt it makes. */
export interface EffectContext {
  readonly runId: string;
  readonly nodeId: string;
  /** Number of the node execution that requested the effect, from 1. */
  readonly step: number;
  /** From 1. */
  readonly attempt: number;
  /** Attempts that count for the policy, this one included: those before a wait was over do not, nor those that the end of a process cut off. */
  readonly tries: number;
  /** The same for every attempt and restart, different for every request. Pass it on to whoever can use it. */
  readonly idempotencyKey: string;
  /** Whether an earlier attempt may have happened: look it up under `idempotencyKey` first. */
  readonly uncertain: boolean;
  /** What was delivered to the waits `{ again: true }` that this handler returned before, in order. */
  readonly answers: readonly Readonly<WaitAnswer>[];
  /** The wait `{ again: true }` that was returned last has passed its deadline. */
  readonly timedOut: boolean;
  /** The `details` of the wait `{ again: true }` that was returned last: what the handler left to itself. */
  readonly waited?: Json;
  /**
   * The run was cancelled, or goes on without this member of a group, while the effect waited with `onCancel: "again"`, or since then,
   * before it waited for something else: what is under way elsewhere can be called off now.
   */
  readonly cancelled: boolean;
  /** Aborts when the attempt times out, its run is cancelled, its lease is lost or the runtime stops. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly log: Logger;
  /** What may be recorded here. */
  readonly limits: Readonly<Limits>;
  /** Says that the attempt is alive: its timeout starts anew. `note` is shown to whoever watches. */
  progress(note?: string): void;
  /**
   * Shows a part of the result to whoever watches the run, at once and as provisional; soon after, it is durable. The text of all
   * parts of an attempt is one stream, and places in it are counted in UTF-16 units.
   */
  stream(part: StreamPart): void;
  /**
   * The trace context of this attempt (`traceparent`, perhaps `tracestate`), for the headers of a request to somewhere else. Empty
   * without telemetry.
   */
  traceHeaders(): TraceHeaders;
  /** Bytes that are too large for a result: put them, and return what `put` answers. They are kept until the outcome is recorded. */
  readonly artifacts: ArtifactAccess;
  /** What the run may spend: reserve what a call may cost before it, and settle what it did cost after it. */
  readonly budget: Budget;
  readonly run: EffectRun;
  /**
   * Of a transactional effect: the store's transaction, as the client of its database (`DatabaseSync` on SQLite, pg's client on Postgres). The
   * handler writes with it and never ends it.
   */
  readonly transaction?: unknown;
}

/** A piece of what an attempt gives: `type` says what it is a piece of (`text`, `reasoning`, `tool-call`, ...), and other members are texts, such as an id. */
export interface StreamPart {
  readonly type: string;
  readonly text: string;
  readonly [member: string]: string;
}

/** The run that requested an effect, to read. */
export interface EffectRun {
  readonly runId: string;
  readonly workflowId: string;
  /** A copy, made when first read. Changing it changes nothing. */
  readonly vars: Readonly<JsonObject>;
  readonly actorId?: string;
  readonly sessionId?: string;
  readonly parentRunId?: string;
}

/** Where messages go; the host decides what becomes of them. */
export interface Logger {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/**
 * Marks an error as definite: what the effect was to do has certainly not happened (`throw definite(new Error("card declined"))`), so the
 * retry policy applies and not `onUncertain`. Errors of your own may carry `definite: true` themselves, and `retryAfterMs` where the other
 * side said how long to wait at least before the next attempt.
 *
 * @returns The same error; a new one with it as `cause` when it takes no properties.
 */
export function definite<E>(error: E): E extends Error ? E : Error {
  return mark(error, { definite: true }) as Anything;
}

/** As `definite`, and not worth another attempt. Errors of your own may carry `definite: true` and `retryable: false` themselves. */
export function permanent<E>(error: E): E extends Error ? E : Error {
  return mark(error, { definite: true, retryable: false }) as Anything;
}

/** Whether an error says that the effect has certainly not happened. */
export function isDefinite(error: unknown): boolean {
  return markOf(error, "definite") === true;
}

/** Whether another attempt makes sense. Default: it does. */
export function isRetryable(error: unknown): boolean {
  return markOf(error, "retryable") !== false;
}

/** What an error says of when another attempt makes sense, in milliseconds from now. */
export function retryAfterOf(error: unknown): number | undefined {
  const given = markOf(error, "retryAfterMs");
  return typeof given === "number" && given > 0 && Number.isFinite(given) ? given : undefined;
}

function mark(error: unknown, marks: Record<string, boolean>): Error {
  const marked = error instanceof Error && Object.isExtensible(error) ? error : new Error(messageOf(error), { cause: error });
  // Not enumerable: marks are for the driver, and would clutter what loggers print.
  for (const [name, value] of Object.entries(marks)) {
    Object.defineProperty(marked, name, { value, configurable: true, writable: true });
  }
  return marked;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function markOf(error: unknown, name: "definite" | "retryable" | "retryAfterMs"): unknown {
  try {
    return typeof error === "object" && error !== null ? (error as Record<string, unknown>)[name] : undefined;
  } catch {
    // A thrown value may be hostile (a getter that throws): it is then not marked.
    return undefined;
  }
}

export function isDefinedEffect(value: unknown): value is AnyEffect {
  return typeof value === "function" && typeof (value as Partial<AnyEffect>).definition?.run === "function";
}

export function isStandardSchema(value: unknown): value is StandardSchemaV1 {
  const standard =
    (typeof value === "object" && value !== null) || typeof value === "function"
      ? (value as Partial<StandardSchemaV1>)["~standard"]
      : undefined;
  return typeof standard?.validate === "function";
}

function refuse(option: string, problem: string, suggestion?: string): never {
  throw invalidOption(option, problem, suggestion);
}

// ---- What the compiler knows --------------------------------------------------------------------------------------

/** What an effect gives: what `run` returns, or what it waits for. Nothing is recorded as null. */
type ResultOfRun<Returned> = NothingIsNull<Returned extends Promise<infer Settled> ? Delivered<Settled> : Delivered<Returned>>;
type Delivered<Settled> = Settled extends WaitRequest<infer Result> ? Result : Settled;
type NothingIsNull<Result> = 0 extends 1 & Result ? Result : Result extends void ? null : Result;

type ResultCheck<Returned> = JsonCheck<NothingIsNull<Exclude<Awaited<Returned>, WaitRequest>>, "result">;
