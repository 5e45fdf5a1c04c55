/**
 * Answers: which wait one is for, and whether it fits. Checked where the answer is given, so that the answerer hears of it and the
 * run waits on.
 */
import type { JsonSchema } from "../kernel/answer-schema.ts";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { nearest } from "../kernel/nearest.ts";
import type { Limits } from "../kernel/execute.ts";
import { isObject, type Json, toJson } from "../kernel/json.ts";
import { isEnded, type OpenEffect, type RunState, statusOf, type WaitState } from "../kernel/run.ts";
import type { Mail, Message } from "../kernel/message.ts";
import { isDecided } from "../kernel/step.ts";
import { asksAboutUncertainty } from "../kernel/wait.ts";
import { readPayload } from "./payload.ts";
import { schemaProblem } from "./schema-problem.ts";

interface Waiting {
  effect: OpenEffect;
  wait: WaitState;
}

/** An answer to the one wait that can be meant: a person's question before events and jobs. @throws See `Runtime.respond`. */
export async function respondMessage(state: RunState, mail: readonly Mail[], given: unknown, limits: Limits): Promise<Message> {
  const { runId } = state;
  const open = unanswered(state, mail).filter(isAnswerable);
  const asked = open.filter(({ wait }) => wait.reason === "user");
  const [candidate, another] = asked.length > 0 ? asked : open;
  if (!candidate) throw notWaiting(state, mail.find(isAnswer)?.key ?? state.answered?.at(-1));
  if (another) throw new AbstractRuntimeError("WAIT_AMBIGUOUS", { runId, open: open.map(({ wait }) => wait.waitKey) });
  return messageTo(state, candidate, given, limits);
}

/** An answer to the wait named. @throws See `Runtime.resume`. */
export async function resumeMessage(
  state: RunState,
  mail: readonly Mail[],
  waitKey: string,
  given: unknown,
  limits: Limits,
): Promise<Message> {
  const { runId } = state;
  const open = unanswered(state, mail).filter(isAnswerable);
  const candidate = open.find(({ wait }) => wait.waitKey === waitKey);
  if (candidate) return messageTo(state, candidate, given, limits);
  const isAnswered = state.answered?.includes(waitKey) || mail.some((message) => isAnswer(message) && message.key === waitKey);
  if (isAnswered || open.length === 0) throw notWaiting(state, isAnswered ? waitKey : undefined);
  const keys = open.map(({ wait }) => wait.waitKey);
  const suggestion = nearest(waitKey, keys);
  throw new AbstractRuntimeError("WAIT_KEY_MISMATCH", { runId, waitKey, open: keys, ...(suggestion ? { suggestion } : {}) });
}

/** ALREADY_ANSWERED for a wait that had its answer, otherwise NOT_WAITING. */
export function notWaiting(state: RunState, answeredKey: string | undefined): AbstractRuntimeError {
  const { runId } = state;
  if (answeredKey !== undefined) return new AbstractRuntimeError("ALREADY_ANSWERED", { runId, waitKey: answeredKey });
  return new AbstractRuntimeError("NOT_WAITING", { runId, status: statusOf(state) });
}

/** The open waits whose answers are not on their way already. */
function unanswered(state: RunState, mail: readonly Mail[]): Waiting[] {
  const onTheWay = mail.filter(isAnswer).map(({ key }) => key);
  if (isEnded(state)) return [];
  return [...state.open.values()].flatMap((effect) => {
    const { wait } = effect;
    if (!wait || effect.phase === "failed" || isDecided(state, effect)) return [];
    const sent = onTheWay.indexOf(wait.waitKey);
    // Each message answers one wait, where several have the same key of their author's choice.
    if (sent >= 0) onTheWay.splice(sent, 1);
    return sent >= 0 ? [] : [{ effect, wait }];
  });
}

/** A moment and the end of a child come by themselves, and say more than an answer could. */
function isAnswerable({ wait }: Waiting): boolean {
  return wait.reason !== "until" && wait.reason !== "subworkflow";
}

function isAnswer({ kind }: Mail): boolean {
  return kind === "answer";
}

async function messageTo(
  { runId, retries = 0 }: RunState,
  { effect, wait }: Waiting,
  given: unknown,
  limits: Limits,
): Promise<Message> {
  const meant = wait.reason === "user" && typeof given === "string" ? { text: given } : given;
  // Nothing at all is no answer: `toJson` says so, where `readPayload` would take it for null.
  const payload =
    meant === undefined ? toJson(meant, "answer") : readPayload(meant, "answer", `a message to run ${runId}`, limits);
  await checkAnswer(runId, effect, wait, payload);
  // One id for each question, which a retry of the run may ask again: a second answer to it is a duplicate, whoever gives it.
  return {
    id: `answer:${effect.key}:${effect.attempt}${retries === 0 ? "" : `:${retries}`}`,
    runId,
    kind: "answer",
    key: wait.waitKey,
    payload,
    ifWaiting: effect.id,
  };
}

/** @throws ANSWER_INVALID */
async function checkAnswer(runId: string, effect: OpenEffect, wait: WaitState, payload: Json): Promise<void> {
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
  const { choices, allowFreeText } = wait;
  const text = isObject(payload) ? payload.text : undefined;
  const isOther = choices !== undefined && typeof text === "string" && !choices.includes(text);
  if (choices && !allowFreeText && typeof text !== "string")
    refuse(`it must be {"text": ...} with one of: ${choices.join(", ")}`);
  const problem = wait.schema ? await schemaProblem(wait.schema as JsonSchema, payload) : undefined;
  // A text that is no choice is told of the choices, also where the schema would take answers of another form.
  if (isOther && (!allowFreeText || problem !== undefined))
    refuse(`"${text}" is not one of: ${choices.join(", ")}`, nearest(text, choices));
  if (problem !== undefined) refuse(problem);
}
