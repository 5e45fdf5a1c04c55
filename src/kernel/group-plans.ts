/** Plans of several effects at once. */
import { checkOptions } from "./errors.ts";
import { isPlainObject } from "./read-plan.ts";
import type { EffectsOf, FirstOf, Requested, ResultOf } from "./typing.ts";
import { type Effect, type WaitPlanOptions, type ShownError, checkFailure, request, refuse } from "./plan.ts";

/**
 * Requests several effects at once and goes on when all are done, with the list of their results. Members are made by
 * the builders, called without options: `all([charge({ cents: 5 }), askUser({ prompt: "Sure?" })], { nextNode: "ship" })`.
 * With `onFailure: "collect"` a member that fails ends nothing: the results say of each how it ended.
 */
export function all<
  const Members extends readonly Effect[],
  const OnFailure extends "fail" | "collect" = "fail",
  const Next extends string = never,
  const Key extends string = never,
>(
  members: Members,
  options?: Partial<WaitPlanOptions<Next, Key>> & AllOptions<OnFailure>,
): Requested<
  "all" | EffectsOf<Members[number]>,
  { -readonly [I in keyof Members]: "fail" extends OnFailure ? ResultOf<Members[I]> : Settled<ResultOf<Members[I]>> },
  Next,
  Key
> {
  const { onFailure, ...rest } = options ?? {};
  checkFailure(onFailure, "all()");
  const payload = { effects: checkMembers(members, "all()"), ...(onFailure === undefined ? {} : { onFailure }) };
  return request("all", payload, Object.keys(rest).length === 0 ? undefined : (rest as WaitPlanOptions<Next, Key>));
}

export interface AllOptions<OnFailure extends "fail" | "collect" = "fail" | "collect"> {
  /** `fail`: the first failure fails the whole. `collect`: failures are among the results. Default: `fail`. */
  onFailure?: OnFailure;
}

/** A result of `all` with `onFailure: "collect"`. */
export type Settled<Result> = { status: "completed"; result: Result } | { status: "failed"; error: ShownError };

/**
 * Requests several effects at once and goes on with the first one done: `{ index, result }`. The others are given up.
 *
 * @throws INVALID_OPTION for an empty list, which would wait for ever.
 */
export function any<const Members extends readonly Effect[], const Next extends string = never, const Key extends string = never>(
  members: Members,
  options?: WaitPlanOptions<Next, Key>,
): Requested<"any" | EffectsOf<Members[number]>, FirstOf<Members>, Next, Key> {
  const effects = checkMembers(members, "any()");
  if (effects.length === 0) refuse("members", "any() with an empty list would wait for ever");
  return request("any", { effects }, options);
}

function checkMembers(members: readonly Effect[], where: string): Effect[] {
  if (!Array.isArray(members)) refuse("members", `${where} needs a list of effects`);
  return members.map((member: unknown, i) => {
    if (isPlainObject(member) && ("nextNode" in member || "effect" in member)) {
      refuse(`members/${i}`, `member ${i} of ${where} is a plan; call its builder without options`);
    }
    if (!isPlainObject(member) || typeof member.type !== "string")
      refuse(`members/${i}`, `member ${i} of ${where} is not an effect`);
    checkOptions(member, ["type", "payload"], `member ${i} of ${where}`);
    return { type: member.type, payload: member.payload === undefined ? {} : member.payload };
  });
}
