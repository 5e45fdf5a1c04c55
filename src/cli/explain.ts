/** What a run is doing and what moves it on, from the run and the store alone. Shown by `why`, and by `run` and `respond` when they leave a run. */
import { AbstractRuntimeError, isError, type LedgerRecord, type Run, type Runtime } from "../index.ts";
import { type Cli, nextCommand } from "./command.ts";
import { moment, when } from "./moment.ts";
import { jsonLine, type Terminal } from "./terminal.ts";

export type Wait = Run["waits"][number];

export interface Explanation {
  run: Run;
  /** One sentence. */
  summary: string;
  fields: [name: string, value: string | undefined][];
  /** What to do, each a sentence or a command. */
  next: string[];
  /** The worker that holds the run now. */
  holder?: string;
  /** Since when it is so, in milliseconds since 1970. */
  since: number;
}

/** @param file The workflow file that the user named, for the commands to go on with. */
export async function explain(cli: Cli, runtime: Runtime, runId: string, file = "FILE"): Promise<Explanation> {
  const run = await runtime.get(runId);
  const loaded = await runtime.store.load(runId);
  const facts: Facts = {
    cli,
    runtime,
    run,
    file,
    now: loaded?.now ?? run.updatedAt,
    holder: loaded?.lease?.workerId,
    mail: (loaded?.mail ?? []).map(({ key }) => key),
  };
  const rest = await explainStatus(facts);
  return { run, since: run.updatedAt, ...(facts.holder === undefined ? {} : { holder: facts.holder }), ...rest };
}

export function printExplanation(terminal: Terminal, { summary, fields, next }: Explanation): void {
  terminal.line(summary, "bold");
  terminal.fields(fields);
  next.forEach((step, i) => {
    terminal.line(`${i === 0 ? "Next: " : "      "}${step}`, "green");
  });
}

interface Facts {
  cli: Cli;
  runtime: Runtime;
  run: Run;
  file: string;
  now: number;
  holder: string | undefined;
  /** Keys of the messages that the run has not taken. */
  mail: readonly string[];
}

type Part = Pick<Explanation, "summary" | "fields" | "next"> & { since?: number };

async function explainStatus(facts: Facts): Promise<Part> {
  const { run } = facts;
  if (run.status === "completed" || run.status === "failed" || run.status === "cancelled") return explainEnd(facts, run.status);
  if (run.blocked) return explainBlocked(facts, run.blocked);
  if (run.paused) return explainPaused(facts);
  return run.status === "waiting" ? explainWaiting(facts) : explainRunning(facts);
}

async function explainEnd(facts: Facts, status: "completed" | "failed" | "cancelled"): Promise<Part> {
  const { cli, run, now, runtime } = facts;
  const [last] = await runtime.ledger(run.runId, { from: run.seq, limit: 1 });
  const reason = last?.kind === "run_cancelled" ? last.data.reason : undefined;
  return {
    summary: `${named(run)} ${status === "cancelled" ? "was cancelled" : status}${status === "failed" ? ` at node "${run.node}"` : ""}.`,
    fields: [
      ["Ended", when(run.updatedAt, now)],
      ["Output", run.output === undefined ? undefined : short(run.output)],
      ["Error", run.error && errorText(run.error)],
      ["Reason", reason],
    ],
    next: [nextCommand(cli, status === "completed" ? "show" : "ledger", [run.runId])],
  };
}

function explainBlocked({ cli, run, file, now }: Facts, { code, problem, quarantine }: NonNullable<Run["blocked"]>): Part {
  const goOn = nextCommand(cli, "run", [file], { id: run.runId });
  const mend: Record<string, string> = {
    WORKFLOW_UNKNOWN: `run it with the file that exports workflow "${run.workflowId}": ${goOn}`,
    EFFECT_UNKNOWN: `put the effect among the workflow's effects, then ${goOn}`,
    WORKFLOW_INCOMPATIBLE: `add the node back, or a migration, then ${goOn}`,
    FORMAT_NEWER: "upgrade abstractruntime; the run is unchanged and goes on under the newer version.",
  };
  return {
    summary: `${named(run)} is ${quarantine ? "quarantined" : "blocked"} at node "${run.node}".`,
    fields: [
      ["Code", code],
      ["Problem", problem],
      ["Since", when(run.updatedAt, now)],
    ],
    next: quarantine
      ? [nextCommand(cli, "verify", [run.runId]), `when it verifies: ${nextCommand(cli, "verify", [run.runId], { lift: true })}`]
      : [mend[code] ?? goOn],
  };
}

function explainPaused({ run, now, holder }: Facts): Part {
  return {
    summary: `${named(run)} is paused at node "${run.node}".`,
    fields: [
      ["Since", when(run.updatedAt, now)],
      ["Holder", holder],
      ["Waits", run.waits.length > 0 ? run.waits.map(({ waitKey }) => waitKey).join(", ") : undefined],
    ],
    next: ["unpause it from a program; nothing else moves it."],
  };
}

function explainRunning({ cli, run, file, now, holder }: Facts): Part {
  return {
    summary: `${named(run)} is running, at node "${run.node}".`,
    fields: [
      ["Holder", holder === undefined ? "none: it is due, and the next worker with its code takes it" : `worker ${holder}`],
      ["Since", when(run.updatedAt, now)],
    ],
    next: [`${holder === undefined ? "" : "if that worker is dead: "}${nextCommand(cli, "run", [file], { id: run.runId })}`],
  };
}

async function explainWaiting(facts: Facts): Promise<Part> {
  const { run } = facts;
  if (run.waits.length === 0) return explainBackoff(facts);
  const fields: Part["fields"] = [];
  const next: string[] = [];
  for (const wait of run.waits) {
    const story = await explainWait(facts, wait);
    if (fields.length > 0) fields.push(["", ""]);
    fields.push(...story.fields);
    next.push(...story.next);
  }
  return {
    summary: `${named(run)} waits at node "${run.node}".`,
    since: Math.min(...run.waits.map(({ since }) => since)),
    fields,
    // Two waits for moments need the same worker.
    next: [...new Set(next)],
  };
}

async function explainBackoff(facts: Facts): Promise<Part> {
  const { cli, run, file, now, runtime } = facts;
  const records = await runtime.ledger(run.runId, { from: Math.max(0, run.seq - 20) });
  const failure = records.findLast((record) => record.kind === "effect_failed" || record.kind === "effect_uncertain");
  return {
    summary: `${named(run)} waits at node "${run.node}" to try an effect again.`,
    since: failure?.at ?? run.updatedAt,
    fields: [
      ["Failed", failure && failureText(failure)],
      ["Since", when(failure?.at ?? run.updatedAt, now)],
      ["Woken by", run.wakeAt === null ? undefined : `itself, at ${when(run.wakeAt, now)}, where a worker has its code`],
    ],
    next: [nextCommand(cli, "run", [file], { id: run.runId, wait: true })],
  };
}

function failureText(record: LedgerRecord): string {
  const why =
    record.kind === "effect_failed" ? record.data.error.message : record.kind === "effect_uncertain" ? record.data.reason : "";
  return `attempt ${record.attempt ?? 1}: ${why}`;
}

// ---- One wait ------------------------------------------------------------------------------------------------------

async function explainWait(facts: Facts, wait: Wait): Promise<{ fields: Part["fields"]; next: string[] }> {
  const { cli, run, file, now } = facts;
  const goOn = nextCommand(cli, "run", [file], { id: run.runId });
  const stay = nextCommand(cli, "run", [file], { id: run.runId, wait: true });
  const limit =
    wait.until !== undefined && wait.reason !== "until" ? `; without it, the wait ends at ${when(wait.until, now)}` : "";
  const since: Part["fields"][number] = ["Since", when(wait.since, now)];
  const answered = facts.mail.includes(wait.waitKey);
  switch (wait.reason) {
    case "until":
      return {
        fields: [
          ["Waits for", `a moment: ${wait.until === undefined ? "?" : moment(wait.until)}`],
          since,
          ["Woken by", `itself, at ${wait.until === undefined ? "?" : when(wait.until, now)}, where a worker has its code`],
        ],
        next: [stay],
      };
    case "subworkflow": {
      const child = await explainChild(facts, wait);
      return { fields: [["Waits for", child.text], since, ["Woken by", `the end of that run${limit}`]], next: child.next };
    }
    default: {
      const answer = {
        user: `a person's answer to: ${wait.prompt ?? wait.waitKey}`,
        event: `the event "${wait.waitKey}"`,
        job: `the result of a job, "${wait.waitKey}"`,
      }[wait.reason];
      const fields: Part["fields"] = [
        ["Waits for", answer],
        ["Choices", wait.choices && `${wait.choices.join(", ")}${wait.allowFreeText ? ", or other text" : ""}`],
        ["Schema", wait.schema && jsonLine(wait.schema)],
        ["Key", wait.waitKey],
        since,
        [
          "Woken by",
          answered
            ? "an answer that is in its mailbox; the next worker with its code takes it"
            : `${wait.reason === "event" ? "that event" : "an answer"}${limit}`,
        ],
      ];
      return { fields, next: [answered ? goOn : respondCommand(facts, wait)] };
    }
  }
}

function respondCommand({ cli, run, file }: Facts, wait: Wait): string {
  const others = run.waits.filter(({ reason }) => reason === "user").length > 1 || wait.reason !== "user";
  const answer = asksAboutUncertainty(wait) ? '{"retry":true}' : wait.reason === "user" ? "ANSWER" : "PAYLOAD";
  return nextCommand(cli, "respond", [run.runId, answer], {
    key: others ? wait.waitKey : undefined,
    file: file === "FILE" ? undefined : file,
  });
}

async function explainChild(facts: Facts, wait: Wait): Promise<{ text: string; next: string[] }> {
  const childId = childOf(wait);
  if (childId === undefined) return { text: `a run under key "${wait.waitKey}"`, next: [] };
  try {
    const child = await explain(facts.cli, facts.runtime, childId, facts.file);
    return { text: `run ${childId} of workflow "${child.run.workflowId}" (${child.run.status})`, next: child.next };
  } catch (error) {
    if (!isError(error, "RUN_NOT_FOUND")) throw error;
    return { text: `run ${childId}, which is not in this store`, next: [nextCommand(facts.cli, "verify", [facts.run.runId])] };
  }
}

/** The run that a wait for a subworkflow is for. */
export function childOf(wait: Wait): string | undefined {
  const { details } = wait;
  const id = typeof details === "object" && details !== null && !Array.isArray(details) ? details.subRunId : undefined;
  return wait.reason === "subworkflow" && typeof id === "string" ? id : undefined;
}

/** Whether a person is asked what became of an attempt (`onUncertain: "ask"`). */
export function asksAboutUncertainty(wait: Wait): boolean {
  return wait.reason === "user" && wait.waitKey.startsWith("uncertain:");
}

/** What stands in the way of a run that ended badly or is blocked, as an error; undefined when nothing does. */
export function failureOf(run: Run): AbstractRuntimeError | undefined {
  const { runId } = run;
  if (run.status === "failed")
    return new AbstractRuntimeError("RUN_FAILED", { runId, problem: run.error?.message ?? "" }, run.error);
  if (run.status === "cancelled") return new AbstractRuntimeError("RUN_CANCELLED", { runId });
  if (!run.blocked || run.status === "completed") return undefined;
  const { code, problem, quarantine } = run.blocked;
  return quarantine
    ? new AbstractRuntimeError("RUN_QUARANTINED", { runId, problem })
    : new AbstractRuntimeError("RUN_BLOCKED", { runId, code, problem });
}

function errorText({ code, name, message }: NonNullable<Run["error"]>): string {
  const kind = code ?? name;
  return message.startsWith(`${kind}: `) ? message : `${kind}: ${message}`;
}

function named(run: Run): string {
  return `Run ${run.runId} of workflow "${run.workflowId}"`;
}

function short(value: unknown): string {
  const text = jsonLine(value);
  return text.length > 500 ? `${text.slice(0, 500)}...` : text;
}
