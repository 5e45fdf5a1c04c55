/** The door for everything that nodes really return: builders, plain objects, AbstractRuntime's spellings, and mistakes. */
import { AbstractRuntimeError } from "./errors.ts";
import { nearest } from "./nearest.ts";
import { checkResultKey } from "./patch.ts";
import type { Effect, Failure, StepPlan } from "./plan.ts";

/**
 * Checks what a node returned and gives it back in one spelling, without members that are null or undefined and without what a
 * completion overrides. Payload and output are the very objects given (they may hold drafts); nothing is frozen.
 *
 * @throws PLAN_INVALID, RESULT_KEY_INVALID
 */
export function readPlan(value: unknown, nodeId: string): StepPlan {
  const invalid: Invalid = (problem, suggestion) => {
    throw new AbstractRuntimeError("PLAN_INVALID", { nodeId, problem, ...(suggestion ? { suggestion } : {}) });
  };
  if (!isPlainObject(value)) return invalid(`it is ${described(value)}, not a plan`);
  if (Object.hasOwn(value, "type"))
    return invalid("it is an effect alone; call the builder with { nextNode }, or put it under `effect`");
  if (Object.hasOwn(value, "reason"))
    return invalid("wait(...) is for effect handlers; a node returns waitEvent(...) or askUser(...)");
  const given = respell(value, planKeys, planSpellings, "", invalid);
  for (const key of ["nodeId", "nextNode", "errorNode", "timeoutNode"] as const) checkName(given[key], key, invalid);
  const plan = given as StepPlan;
  if (plan.effect !== undefined) plan.effect = readEffect(plan.effect, invalid);
  if (plan.failure !== undefined) plan.failure = readFailure(plan.failure, invalid);
  const named = plan.nodeId === undefined ? {} : { nodeId: plan.nodeId };

  if (plan.completeOutput !== undefined) {
    if (plan.failure) return invalid("it both completes and fails the run");
    return { ...named, completeOutput: plan.completeOutput };
  }
  if (plan.failure) {
    if (plan.effect || plan.nextNode) return invalid("it fails the run and also names an effect or a next node");
    return { ...named, failure: plan.failure };
  }
  if (plan.nextNode === undefined) {
    if (plan.effect) return invalid(`effect "${plan.effect.type}" has no nextNode, so the run could not go on after it`);
    if (Object.hasOwn(value, "completeOutput") || Object.hasOwn(value, "complete_output")) {
      return invalid(
        "its completeOutput is null or undefined, which means that the run is not done; complete with {} or another value",
      );
    }
    return invalid("it says neither where to go nor that the run is done");
  }
  if (!plan.effect) {
    const idle = plan.errorNode !== undefined ? "errorNode" : plan.timeoutNode !== undefined ? "timeoutNode" : undefined;
    if (idle) return invalid(`${idle} belongs to an effect, and there is none`);
  }
  return plan;
}

const planKeys = ["nodeId", "effect", "nextNode", "completeOutput", "failure", "errorNode", "timeoutNode"] as const;
/** AbstractRuntime's spellings, for plans that come from data written for it. */
const planSpellings: Record<string, string> = { node_id: "nodeId", next_node: "nextNode", complete_output: "completeOutput" };
const effectKeys = ["type", "payload", "resultKey"] as const;
const effectSpellings: Record<string, string> = { result_key: "resultKey" };

type Invalid = (problem: string, suggestion?: string) => never;

function readEffect(value: unknown, invalid: Invalid): Effect {
  if (!isPlainObject(value)) return invalid(`its effect is ${described(value)}, not { type, payload, resultKey }`);
  const { type, resultKey } = respell(value, effectKeys, effectSpellings, "effect.", invalid);
  const payload = value.payload === undefined ? {} : value.payload;
  checkName(type, "effect.type", invalid);
  if (type === undefined) return invalid("its effect has no type");
  checkName(resultKey, "effect.resultKey", invalid);
  if (resultKey === undefined) return { type: type as string, payload };
  checkResultKey(resultKey as string);
  return { type: type as string, payload, resultKey: resultKey as string };
}

function readFailure(value: unknown, invalid: Invalid): Failure {
  if (!isPlainObject(value)) return invalid(`its failure is ${described(value)}, not { message, code, details }`);
  const given = respell(value, ["message", "code", "details"], {}, "failure.", invalid);
  if (typeof given.message !== "string") return invalid("its failure has no message");
  if (given.code !== undefined && typeof given.code !== "string") return invalid("failure.code is not text");
  return given as unknown as Failure;
}

/** The members of `value` in our spelling, null and undefined left out. Takes plain objects and drafts alike. */
function respell(
  value: Record<string, unknown>,
  known: readonly string[],
  spellings: Record<string, string>,
  where: string,
  invalid: Invalid,
): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  for (const key of Object.keys(value)) {
    const name = Object.hasOwn(spellings, key) ? (spellings[key] as string) : key;
    if (!known.includes(name)) return invalid(`"${where}${key}" is not part of a plan`, nearest(key, known));
    const member = value[key];
    if (member === undefined || member === null) continue;
    if (given[name] !== undefined) return invalid(`it has ${where}${name} in two spellings`);
    given[name] = member;
  }
  return given;
}

function checkName(name: unknown, key: string, invalid: Invalid): void {
  if (name === undefined) return;
  if (typeof name !== "string") invalid(`${key} is ${described(name)}, not text`);
  if (name === "") invalid(`${key} is empty`);
}

export function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function described(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}
