/**
 * A run from its files. What cannot be read makes this one run a quarantined one, and never the store (L7). The row is a cache of the
 * fold (L1): a `run.json` that cannot be read is made again from the ledger.
 */
import { AbstractRuntimeError, isError } from "../../kernel/errors.ts";
import { restore } from "../../kernel/restore.ts";
import { isObject, type JsonObject, parseJson } from "../../kernel/json.ts";
import { openWaits, type RunRow, rowOf, type RunState } from "../../kernel/run.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { Blocked } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import { countsTowardsLimit } from "../../kernel/message.ts";
import { isOver } from "../ended.ts";
import { type Making, newRun, type Run } from "../memory/contents.ts";
import type { Journal } from "./journal.ts";
import { idOf, isHashed, nameOf } from "./names.ts";
import { recordOf } from "./record-line.ts";
import { type Reach, runFormat, type RunFiles } from "./run-files.ts";
import { restoreLines } from "./tables.ts";

interface LoadedRun {
  run: Run;
  /** Its files must be brought in line with it. */
  isChanged: boolean;
}

/** Undefined when the directory is not that of a run. */
export function loadRun(name: string, journal: Journal, make: Making, now: number): LoadedRun | undefined {
  let unreadable: string | undefined;
  const read = (file: string): Buffer | undefined => {
    try {
      return journal.read(`runs/${name}/${file}`);
    } catch (error) {
      if (isError(error)) throw error;
      // May not be read, is no file: the matter of its run.
      unreadable ??= `runs/${name}/${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`;
      return undefined;
    }
  };
  const kept = keptOf(read("run.json"), name);
  const mailbox = (kept?.reach.mailboxBytes === 0 ? undefined : read("mailbox.jsonl")) ?? Buffer.alloc(0);
  const run = kept ? keptRun(kept, mailbox, make) : madeRun(name, read, mailbox, make, now);
  const isThere = (file: string): boolean => journal.fs.existsSync(journal.path(`runs/${name}/${file}`));
  if (!run || (!kept && !["run.json", "ledger.jsonl", "mailbox.jsonl"].some(isThere))) return undefined;
  // What is not where its id says is nothing that may be written to.
  if (nameOf(run.row.runId) !== name) unreadable ??= `what runs/${name} is the directory of cannot be read`;
  if (unreadable !== undefined) return { run: untouched(run, unreadable), isChanged: false };
  if (kept && kept.format > runFormat) return { run: newer(run, `runs/${name}/run.json`, kept.format), isChanged: false };
  return { run, isChanged: !kept || (run.records as RunFiles).forgetPast(run, mailbox.length) };
}

/** A run whose files are left as they are. */
function untouched(run: Run, unreadable: string): Run {
  quarantine(run, unreadable);
  (run.records as RunFiles).unreadable = unreadable;
  return run;
}

/** The store's own format tells of a newer store; this is of one run. */
function newer(run: Run, what: string, found: number): Run {
  const { code, problem } = new AbstractRuntimeError("FORMAT_NEWER", { what, found, known: runFormat });
  untouched(run, problem);
  run.blocked = { code, problem, fingerprint: "", quarantine: true };
  return run;
}

interface Kept {
  format: number;
  row: RunRow;
  kept: JsonObject;
  reach: Reach;
}

function keptOf(bytes: Buffer | undefined, name: string): Kept | undefined {
  try {
    const value = parseJson(bytes?.toString("utf8") ?? "null");
    if (!isObject(value) || !isObject(value.row) || !isObject(value.kept) || !isObject(value.reach)) return undefined;
    const { ledger, mailboxBytes, checkpoints } = value.reach;
    const isWhole = isObject(ledger) && typeof mailboxBytes === "number" && Array.isArray(checkpoints);
    // A copy of another run's directory is not that run.
    const { runId } = value.row;
    const isHere = typeof value.format === "number" && typeof runId === "string" && nameOf(runId) === name;
    return isWhole && isHere ? (value as unknown as Kept) : undefined;
  } catch {
    return undefined;
  }
}

function keptRun({ row, kept, reach }: Kept, mailbox: Buffer, make: Making): Run {
  const run = newRun(row, 0, make);
  for (const [name, value] of Object.entries(kept)) {
    const members = run as unknown as Record<string, unknown>;
    members[name] = members[name] instanceof Set ? new Set(value as string[]) : value;
  }
  const files = run.records as RunFiles;
  files.restore(reach);
  run.checkpoints = reach.checkpoints.map((checkpoint) => files.checkpoint(checkpoint));
  const damaged = restoreLines(run, mailbox.subarray(0, reach.mailboxBytes).toString("utf8"));
  if (damaged.length > 0) quarantine(run, `line ${damaged.join(", ")} of its mailbox.jsonl cannot be read`);
  else if (mailbox.length < reach.mailboxBytes) quarantine(run, "its mailbox.jsonl is cut short");
  return run;
}

/** From the ledger, as far as that can be read. Undefined when the name is none that the store gives. */
function madeRun(
  name: string,
  read: (file: string) => Buffer | undefined,
  mailbox: Buffer,
  make: Making,
  now: number,
): Run | undefined {
  const ledger = read("ledger.jsonl") ?? Buffer.alloc(0);
  // What has no end was cut off by a crash: it was never answered.
  const whole = (bytes: Buffer): Buffer => bytes.subarray(0, bytes.lastIndexOf(10) + 1);
  const lines = whole(ledger).toString("utf8").split("\n").slice(0, -1);
  const first = recordOf(lines[0] ?? "")?.seq ?? 0;
  const records: StoredRecord[] = [];
  for (const line of lines) {
    const record = recordOf(line);
    if (record?.seq !== first + records.length) break;
    records.push(record);
  }
  const runId = idOf(name) ?? (isHashed(name) ? (runIdOf(records[0]) ?? name) : undefined);
  if (runId === undefined) return undefined;
  // Where older records were archived, it stands for them.
  const base = first > 0 ? read("checkpoint-0.txt") : undefined;
  const checkpoint = base ? { seq: first - 1, ordinal: 0, text: base.toString("utf8") } : undefined;
  const { state, problem } = folded(runId, records, checkpoint);
  const run = newRun(state ? rowOf(state) : unknownRow(runId, now), 0, make);
  run.epoch = 1;
  (run.records as RunFiles).restore({
    ledger: { first, next: first + lines.length, sizeBytes: whole(ledger).length },
    mailboxBytes: whole(mailbox).length,
    checkpoints: checkpoint ? [{ seq: checkpoint.seq, ordinal: 0, at: 0 }] : [],
  });
  if (checkpoint) run.checkpoints = [(run.records as RunFiles).checkpoint(checkpoint)];
  const damaged = restoreLines(run, whole(mailbox).toString("utf8"));
  run.waits.clear();
  if (state) for (const wait of openWaits(state)) run.waits.set(wait.effectId, wait);
  run.mailCount = [...run.mail.values()].filter(({ kind }) => countsTowardsLimit(kind)).length;
  if (run.mail.size > 0 && !isOver(run.row)) run.row.wakeAt = Math.min(run.row.wakeAt ?? now, now);
  const unread = records.length < lines.length ? `line ${records.length + 1} of its ledger.jsonl cannot be read` : problem;
  if (unread !== undefined) quarantine(run, unread);
  else if (damaged.length > 0) quarantine(run, `line ${damaged.join(", ")} of its mailbox.jsonl cannot be read`);
  return run;
}

function folded(runId: string, tail: StoredRecord[], checkpoint: Checkpoint | undefined): { state?: RunState; problem?: string } {
  try {
    return { state: restore(runId, { tail, ...(checkpoint ? { checkpoint } : {}) }).state };
  } catch (error) {
    // A checkpoint that is no good throws a RangeError.
    if (!isError(error, "RECORD_CORRUPT")) return { problem: error instanceof Error ? error.message : String(error) };
    const before = tail.filter(({ seq }) => seq < error.fields.seq);
    return {
      ...(before.length > 0 && before.length < tail.length ? folded(runId, before, checkpoint) : {}),
      problem: error.problem,
    };
  }
}

/** Of a run that has no record which can be read. */
function unknownRow(runId: string, now: number): RunRow {
  return {
    runId,
    workflowId: "",
    version: "",
    status: "running",
    paused: false,
    node: "",
    step: 0,
    seq: -1,
    head: "",
    wakeAt: null,
    priority: 0,
    createdAt: now,
    updatedAt: now,
  };
}

function runIdOf(first: StoredRecord | undefined): string | undefined {
  try {
    const header = parseJson(first?.header ?? "null");
    return isObject(header) && typeof header.runId === "string" ? header.runId : undefined;
  } catch {
    return undefined;
  }
}

function quarantine(run: Run, what: string): void {
  const blocked: Blocked = {
    code: "RECORD_CORRUPT",
    problem: `run ${run.row.runId} is damaged: ${what}`,
    fingerprint: "",
    quarantine: true,
  };
  run.blocked = blocked;
}
