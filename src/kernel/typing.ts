/**
 * What the compiler knows of plans: the nodes they name, what they write where, which effects they request, what they complete
 * with. All of it exists in types alone; the errors it makes read like sentences.
 */
import type { SchemaResult } from "./answer-schema.ts";
import type { Effect, StepPlan } from "./plan.ts";

/** The one `any`: for what no type describes, such as vars without a schema. It fits everything, which `unknown` does not. */
// biome-ignore lint/suspicious/noExplicitAny: see the sentence above; a name for it keeps the reason in one place.
export type Anything = any;

/** Exists in types only. All of it is covariant, so that a union of plans loses nothing when the compiler shortens it. */
declare const known: unique symbol;

/**
 * A plan whose parts the compiler knows.
 *
 * @typeParam Next The nodes it names: next, error and timeout.
 * @typeParam Writes What it writes where, as `Write<Key, Result>`.
 * @typeParam Effects The types of the effects that it requests.
 * @typeParam Output What it completes the run with.
 */
export interface Plan<Next extends string = string, Writes = never, Effects extends string = never, Output = never>
  extends StepPlan {
  readonly [known]: { next: Next; writes: Writes; effects: Effects; output: Output };
}

/** A result that goes to a dotted key of the vars. */
export interface Write<Key extends string, Result> {
  key: Key;
  result: Result;
}

/** An effect without a place in the graph: a member of `all([...])` or `any([...])`. */
export interface EffectRequest<Type extends string = string, Result = Anything> extends Effect {
  readonly [known]: { effects: Type; result: Result };
}

/** What a builder returns: without options a request, with them a plan. */
export type Requested<Type extends string, Result, Next extends string, Key extends string> = [Next] extends [never]
  ? EffectRequest<Type, Result>
  : Plan<Next, [Key] extends [never] ? never : Write<Key, Result>, Type>;

export type EffectsOf<Member> = Member extends EffectRequest<infer Type, Anything> ? Type : never;
export type ResultOf<Member> = Member extends EffectRequest<string, infer Result> ? Result : Anything;

/** For a list of known length, `index` tells which result it is. */
export type FirstOf<Members extends readonly Effect[]> = number extends Members["length"]
  ? { index: number; result: ResultOf<Members[number]> }
  : {
      [I in keyof Members]: { index: I extends `${infer Index extends number}` ? Index : number; result: ResultOf<Members[I]> };
    }[number];

export type Answer<Choice extends string, FreeText extends boolean, Schema> = [Schema] extends [undefined]
  ? { text: true extends FreeText ? string : Choice }
  : SchemaResult<Schema>;

/** `{}`, and nothing in it. */
export type EmptyOutput = Record<never, never>;

export type Completable<Output> = [Output] extends [null]
  ? "complete(null) would not complete the run: leave the output out, or give an object."
  : [NotJson<Output, "output">] extends [never]
    ? Output
    : NotJson<Output, "output">;

// ---- JSON, checked by the compiler --------------------------------------------------------------------------------

/** For `T & JsonCheck<T, "vars">`: unknown when all of `T` is JSON, otherwise an error with a sentence for what is not. */
export type JsonCheck<T, Path extends string> = [NotJson<T, Path>] extends [never] ? unknown : { error: NotJson<T, Path> };

/** A sentence for each part of `T` that is not JSON; never when all of it is. */
type NotJson<T, Path extends string> = [T] extends [JsonLike | undefined] ? never : JsonProblem<T, Path>;

/** What toJson takes, as a type. Interfaces have no index signature and never fit it; `JsonProblem` looks into those. */
type JsonLike = string | number | boolean | null | readonly JsonLike[] | { readonly [key: string]: JsonLike | undefined };

/** A sentence for each member that is not JSON, down to a depth where recursive types must end; `any` and `unknown` are left to run time. */
type JsonProblem<T, Path extends string, Depth extends unknown[] = []> = Depth["length"] extends 6
  ? never
  : 0 extends 1 & T
    ? never
    : T extends string | number | boolean | null | undefined
      ? never
      : T extends bigint
        ? `${Path} is a bigint, which is not JSON: use a number or a string.`
        : T extends symbol
          ? `${Path} is a symbol, which is not JSON.`
          : T extends (...parameters: never[]) => unknown
            ? `${Path} is a function, which is not JSON: keep data here and functions in the code.`
            : T extends Date
              ? `${Path} is a Date, which is not JSON: use an ISO string or milliseconds.`
              : T extends ReadonlyMap<unknown, unknown>
                ? `${Path} is a Map, which is not JSON: use a plain object.`
                : T extends ReadonlySet<unknown>
                  ? `${Path} is a Set, which is not JSON: use a list.`
                  : T extends ArrayBufferView | ArrayBufferLike
                    ? `${Path} is binary, which is not JSON: use base64 text or an artifact.`
                    : T extends readonly (infer Element)[]
                      ? undefined extends Element
                        ? unknown extends Element
                          ? never
                          : `${Path}[] may be undefined, which is not JSON in a list: use null.`
                        : JsonProblem<Element, `${Path}[]`, [...Depth, unknown]>
                      : T extends object
                        ? {
                            [Key in keyof T & (string | number)]-?: JsonProblem<T[Key], `${Path}.${Key}`, [...Depth, unknown]>;
                          }[keyof T & (string | number)]
                        : never;
