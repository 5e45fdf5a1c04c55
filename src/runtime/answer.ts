/** Whether an answer fits the wait it is for. Checked where the answer is given, so that the answerer hears of it and the run waits on. */
import { createContext, Script } from "node:vm";
import { type Schema, Validator } from "@cfworker/json-schema";
import { AbstractRuntimeError, nearest } from "../kernel/errors.ts";
import { isObject, type Json } from "../kernel/json.ts";
import type { OpenEffect, WaitState } from "../kernel/run.ts";
import { asksAboutUncertainty } from "../kernel/step.ts";

/** Patterns in a schema run on a backtracking engine, so a check gets this long and no longer. */
const checkMs = 100;

/** @throws ANSWER_INVALID */
export function checkAnswer(runId: string, effect: OpenEffect, wait: WaitState, payload: Json): void {
  const refuse = (problem: string, suggestion?: string): never => {
    throw new AbstractRuntimeError("ANSWER_INVALID", {
      runId,
      waitKey: wait.waitKey,
      problem,
      ...(suggestion ? { suggestion } : {}),
    });
  };
  if (asksAboutUncertainty(effect)) {
    const fits = isObject(payload) && (payload.retry === true) !== Object.hasOwn(payload, "result");
    if (!fits) refuse('it must be {"retry": true} or {"result": ...}');
    return;
  }
  if (wait.choices && !wait.allowFreeText) {
    const text = isObject(payload) ? payload.text : undefined;
    if (typeof text !== "string") refuse(`it must be {"text": ...} with one of: ${wait.choices.join(", ")}`);
    else if (!wait.choices.includes(text))
      refuse(`"${text}" is not one of: ${wait.choices.join(", ")}`, nearest(text, wait.choices));
  }
  if (wait.schema) {
    const problem = schemaProblem(wait.schema as Schema, payload);
    if (problem !== undefined) refuse(problem);
  }
}

function schemaProblem(schema: Schema, payload: Json): string | undefined {
  try {
    const check = (): string | undefined => {
      const { valid, errors } = new Validator(schema, "2020-12", false).validate(payload);
      // The outer errors only say that an inner one exists.
      return valid
        ? undefined
        : errors
            .slice(-3)
            .map(({ instanceLocation, error }) => `${instanceLocation}: ${error}`)
            .join("; ");
    };
    return JSON.stringify(schema).includes('"pattern') ? within(checkMs, check) : check();
  } catch (error) {
    return `it cannot be checked against the wait's schema: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Runs `check` and throws when it takes longer: only a script of `node:vm` can be interrupted inside a regular expression. */
function within<T>(timeoutMs: number, check: () => T): T {
  return new Script("check()").runInContext(createContext({ check }), { timeout: timeoutMs }) as T;
}
