/** What one thing that a run has under way is, what wakes it, and the command that moves it on. */
import { isError, type OverBudget, type Run } from "../index.ts";
import { nextCommand } from "./command.ts";
import type { Facts, Fields, Wait } from "./explain.ts";
import { moment, when } from "./moment.ts";
import type { OpenEffect } from "./open-effects.ts";
import { jsonLine } from "./terminal.ts";

export interface Story {
  fields: Fields;
  next: string[];
}

export async function explainEffect(facts: Facts, effect: OpenEffect): Promise<Story> {
  switch (effect.phase) {
    case "joining":
      return effect.window === undefined ? explainGroup(effect) : explainFanOut(facts, effect);
    case "backing_off":
      return explainBackoff(facts, effect);
    case "parked": {
      const wait = facts.run.waits.find(({ effectId }) => effectId === effect.id);
      return wait ? explainWait(facts, wait, effect) : { fields: [], next: [] };
    }
    default:
      return explainExecuting(facts, effect);
  }
}

function explainExecuting({ holder, holderIsDead, now, ...facts }: Facts, effect: OpenEffect): Story {
  const isLeft = holder === undefined || holderIsDead;
  const since: Fields[number] = ["Since", when(effect.since, now)];
  // It was requested, and waits for a slot of its type or for what may not execute beside it.
  if (effect.attempt === 0) {
    const by = isLeft ? "the next worker with its code" : "a slot, or the end of what goes before it";
    return { fields: [["Waits for", `its turn: ${nameOf(effect)}, not begun`], since, ["Woken by", by]], next: [] };
  }
  const what =
    effect.type === "start_subworkflow"
      ? `the start of a run of workflow "${workflowOf(effect)}"`
      : `${nameOf(effect)}, ${attemptText(facts, effect, effect.attempt)}`;
  const by = isLeft
    ? "the next worker with its code, which finds out what became of the attempt: the last one stopped in the midst of it"
    : "its outcome";
  return { fields: [["Executes", what], since, ["Woken by", by]], next: [] };
}

function nameOf(effect: OpenEffect): string {
  return `effect "${effect.type}"${ofTool(effect)}`;
}

/** Of a tool call, its tool: an agent has many of them. */
function ofTool({ type, payload }: OpenEffect): string {
  const tool = type === "tool_call" ? memberOf(payload, "name") : undefined;
  return tool === undefined ? "" : ` of tool "${tool}"`;
}

function explainBackoff({ cli, run, path, now, ...facts }: Facts, effect: OpenEffect): Story {
  const at = effect.retryAt ?? now;
  return {
    fields: [
      ["Waits for", `${attemptText({ run, ...facts }, effect, effect.attempt + 1)} of ${nameOf(effect)}`],
      ["Failed", effect.failure === undefined ? undefined : `attempt ${effect.attempt}: ${effect.failure}`],
      ["Since", when(effect.since, now)],
      ["Woken by", `itself, at ${when(at, now)}, where a worker has its code`],
    ],
    next: [nextCommand(cli, "run", [path], { id: run.runId, wait: true })],
  };
}

/** How many attempts there may be stands in the code alone. */
function attemptText({ run, file }: Pick<Facts, "run" | "file">, { type }: OpenEffect, attempt: number): string {
  const own = file?.workflows.find(({ id }) => id === run.workflowId)?.effects.get(type);
  const handler = own && !own.declared ? own : file?.effects.find(({ effectType }) => effectType === type)?.definition;
  const most = handler?.policy.maxAttempts;
  return `attempt ${attempt}${most === undefined ? "" : ` of ${Number.isFinite(most) ? most : "any number"}`}`;
}

function explainGroup({ type, members = 0, ended, failed, collect }: OpenEffect): Story {
  const done = `${ended.size} of ${members} ended${failed.size > 0 ? `, ${failed.size} of them failed` : ""}`;
  const rule = type === "any" ? "the first of these to succeed" : collect ? "all of these, failed or not" : "all of these";
  return { fields: [["Waits for", `${rule} (${done})`]], next: [] };
}

function explainFanOut({ cli, run, now }: Facts, effect: OpenEffect): Story {
  const { members = 0, window = 0, started, ended, failed, since } = effect;
  let underWay = 0;
  for (let i = 0; i < started; i++) if (!ended.has(i)) underWay += 1;
  const parts = [
    `${ended.size} ended${failed.size > 0 ? ` (${failed.size} of them not completed)` : ""}`,
    `${underWay} under way`,
    `${members - ended.size - underWay} not begun`,
  ];
  return {
    fields: [
      ["Waits for", `${members} runs of workflow "${workflowOf(effect)}", at most ${window} at a time: ${parts.join(", ")}`],
      ["Since", when(since, now)],
      ["Woken by", "the ends of these runs"],
    ],
    next: [nextCommand(cli, "tree", [run.runId])],
  };
}

function workflowOf({ payload }: OpenEffect): string {
  return memberOf(payload, "workflowId") ?? "?";
}

function memberOf(payload: OpenEffect["payload"], name: string): string | undefined {
  const member = typeof payload === "object" && payload !== null && !Array.isArray(payload) ? payload[name] : undefined;
  return typeof member === "string" ? member : undefined;
}

// ---- Waits ---------------------------------------------------------------------------------------------------------

async function explainWait(facts: Facts, wait: Wait, effect: OpenEffect): Promise<Story> {
  const { cli, run, path, now } = facts;
  const deadline = wait.until !== undefined && wait.reason !== "until" ? deadlineText(wait, wait.until, effect, now) : "";
  const since: Fields[number] = ["Since", when(wait.since, now)];
  if (wait.reason === "until") {
    const at = wait.until ?? now;
    return {
      fields: [
        ["Waits for", `a moment: ${moment(at)}`],
        since,
        ["Woken by", `itself, at ${when(at, now)}, where a worker has its code`],
      ],
      next: [nextCommand(cli, "run", [path], { id: run.runId, wait: true })],
    };
  }
  const arrived = facts.mail.find(({ kind, key }) => kind !== "control" && key === wait.waitKey);
  if (wait.reason === "subworkflow") {
    const child = await explainChild(facts, wait);
    const woken = arrived ? inMailbox("the end of that run") : `the end of that run${deadline}`;
    return { fields: [["Waits for", child.text], since, ["Woken by", woken]], next: child.next };
  }
  const awaited = {
    user: `a person's answer to: ${wait.prompt ?? wait.waitKey}`,
    event: `the event "${wait.waitKey}"`,
    job: `the result of a job${ofTool(effect)}, "${wait.waitKey}"`,
  }[wait.reason];
  const other = wait.schema ? ", or what fits the schema" : ", or other text";
  const by = { user: "an answer", event: "that event", job: "that result" }[wait.reason];
  return {
    fields: [
      ["Waits for", awaited],
      ["Choices", wait.choices && `${wait.choices.join(", ")}${wait.allowFreeText ? other : ""}`],
      ["Schema", wait.schema && jsonLine(wait.schema)],
      ["Key", wait.waitKey],
      since,
      ["Woken by", arrived ? inMailbox(by) : `${by}${deadline}`],
    ],
    next: arrived ? [nextCommand(cli, "run", [path], { id: run.runId })] : answerCommands(facts, wait),
  };
}

function inMailbox(what: string): string {
  return `${what} that is in its mailbox; the next worker with its code takes it`;
}

function deadlineText(wait: Wait, until: number, { timeoutNode, errorNode, parent }: OpenEffect, now: number): string {
  if (wait.budget !== undefined) return `; without it, it looks for room again at ${when(until, now)}`;
  if (wait.onTimeout === "again") return `; without it, its handler is called again at ${when(until, now)}`;
  const target = timeoutNode ?? errorNode;
  const then = parent !== undefined ? "this counts as failed" : target === undefined ? "the run fails" : `node "${target}" runs`;
  return `; without it, the wait ends at ${when(until, now)}, and ${then}`;
}

/** So much more as the next call needs. */
function raiseOf({ budget, details }: Wait): string | undefined {
  if (budget === undefined) return undefined;
  const { name, needed } = details as unknown as OverBudget;
  return JSON.stringify({ raise: { [name]: needed } });
}

function answerCommands({ cli, run, path, file }: Facts, wait: Wait): string[] {
  // Whoever carries the job out is asked again: what it gives is nobody's to type.
  if (wait.reason === "job" && wait.onTimeout === "again")
    return [nextCommand(cli, "run", [path], { id: run.runId, wait: true })];
  const several = run.waits.filter(({ reason }) => reason === "user").length > 1;
  const answer = asksAboutUncertainty(wait)
    ? '{"retry":true}'
    : (raiseOf(wait) ?? (wait.reason === "user" ? "ANSWER" : "PAYLOAD"));
  const respond = nextCommand(cli, "respond", [run.runId, answer], {
    key: several || wait.reason !== "user" ? wait.waitKey : undefined,
    file: file?.path,
  });
  // Not emit, which reaches every other run that waits under this key as well.
  return wait.reason === "event" ? [respond, nextCommand(cli, "signal", [run.runId, wait.waitKey, "PAYLOAD"])] : [respond];
}

async function explainChild(facts: Facts, wait: Wait): Promise<{ text: string; next: string[] }> {
  const childId = childOf(wait);
  if (childId === undefined) return { text: `a run under key "${wait.waitKey}"`, next: [] };
  try {
    const child = await facts.explainRun(childId);
    return { text: `run ${childId} of workflow "${child.run.workflowId}" (${statusText(child.run)})`, next: child.next };
  } catch (error) {
    if (!isError(error, "RUN_NOT_FOUND")) throw error;
    return { text: `run ${childId}, which is not in this store`, next: [nextCommand(facts.cli, "verify", [facts.run.runId])] };
  }
}

/** Where a run is that is not driven here. */
export function movingText({ phase, to }: Pick<NonNullable<Run["moving"]>, "phase" | "to">): string {
  return phase === "left" ? `moved to ${to}` : phase === "leaving" ? `on its way to ${to}` : `on its way here from ${to}`;
}

/** The status, and what else there is to know of a run that has not ended. */
export function statusText({
  status,
  paused,
  blocked,
  cancelling,
  undoing,
  moving,
}: Pick<Run, "status" | "paused" | "blocked" | "cancelling" | "undoing" | "moving">): string {
  if (moving) return `${status}, ${movingText(moving)}`;
  if (status !== "running" && status !== "waiting") return status;
  const beside = [
    ...(paused ? ["paused"] : []),
    ...(cancelling ? ["being cancelled"] : []),
    ...(undoing ? ["being undone"] : []),
    ...(blocked ? [`${blocked.quarantine ? "quarantined" : "blocked"}: ${blocked.code}`] : []),
  ];
  return [status, ...beside].join(", ");
}

/** The run that a wait for a subworkflow is for. */
export function childOf(wait: Wait): string | undefined {
  const { details } = wait;
  // A wait that came from Python names it in its own way.
  const { subRunId, sub_run_id: id = subRunId } =
    typeof details === "object" && details !== null && !Array.isArray(details) ? details : {};
  return wait.reason === "subworkflow" && typeof id === "string" ? id : undefined;
}

/** Whether a person is asked what became of an attempt (`onUncertain: "ask"`). */
export function asksAboutUncertainty(wait: Wait): boolean {
  return wait.reason === "user" && wait.waitKey.startsWith("uncertain:");
}
