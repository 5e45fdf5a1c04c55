/** Runs on their way between two stores. */
import type { StoredRecord } from "../../kernel/record.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { Letter } from "../../kernel/message.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import { cloneJson } from "../../kernel/json.ts";
import { countsTowardsLimit } from "../../kernel/message.ts";
import { isOver } from "../ended.ts";
import {
  checkAdoption,
  checkArriving,
  checkFollows,
  checkWhole,
  fenceObstacle,
  movesOf,
  leftBehind,
  type Move,
  type MoveUnderWay,
  phasesOf,
  type Refusal,
  withoutParent,
} from "../moving.ts";
import { checkArtifacts, holdArtifacts } from "./artifacts.ts";
import { type Contents, copyRow, newRun, type Run } from "./contents.ts";
import { bury, remove } from "./retention.ts";

/** What gives a lease back, what makes a run due at once, and what tells that one may be due. */
export interface Waking {
  free(run: Run): void;
  wake(run: Run): void;
  ring(): void;
}

export function fence(contents: Contents, runIds: readonly string[], { token, to }: Move, { free }: Waking): Refusal[] {
  const { runs, live, changed } = contents;
  const among = new Set(runIds);
  const stays = (runId: string | undefined): boolean =>
    runId !== undefined && !among.has(runId) && runs.has(runId) && runs.get(runId)?.moving?.phase !== "left";
  const refused: Refusal[] = [];
  for (const runId of among) {
    const parentRunId = runs.get(runId)?.row.parentRunId;
    const problem =
      fenceObstacle(runs.get(runId), token) ?? (stays(parentRunId) ? withoutParent(parentRunId as string) : undefined);
    if (problem !== undefined) refused.push({ runId, problem });
  }
  for (const { row } of runs.values())
    if (row.parentRunId !== undefined && among.has(row.parentRunId) && stays(row.runId))
      refused.push({ runId: row.runId, problem: leftBehind(row.parentRunId) });
  if (refused.length > 0) return refused;
  for (const runId of among) {
    const run = runs.get(runId) as Run;
    if (run.moving) continue;
    if (run.holder !== undefined) free(run);
    // Whoever held it is a stranger, here and at the other store.
    run.epoch += 1;
    run.moving = { token, phase: "leaving", to, wakeAt: run.row.wakeAt };
    run.row.wakeAt = null;
    live.delete(run);
    changed.add(run);
  }
  return [];
}

export function copyOf({ runs }: Contents, runId: string): RunCopy | undefined {
  const run = runs.get(runId);
  if (!run) return undefined;
  const { row, moving, epoch, waits, blocked, records, known } = run;
  const base = records.first > 0 ? run.checkpoints.slice(0, 1) : [];
  const checkpoints: Checkpoint[] = [...new Set([...base, ...run.checkpoints.slice(-1)])].map((checkpoint) => ({
    ...checkpoint,
  }));
  return {
    row: { ...copyRow(row), wakeAt: moving ? moving.wakeAt : row.wakeAt },
    epoch,
    waits: [...waits.values()].map((wait) => ({ ...wait })),
    indexed: Object.fromEntries(run.indexed),
    checkpoints,
    ...(records.first > 0 ? { archivedBefore: records.first } : {}),
    ...(blocked ? { blocked: { ...blocked } } : {}),
    artifacts: [...run.artifacts.keys()],
    ...(run.counters.size > 0 ? { counters: Object.fromEntries(run.counters) } : {}),
    letters: [...known.values()].map((letter) => letterOf(run, letter)),
  };
}

function letterOf({ mail, recalled }: Run, letter: Omit<Letter, "state" | "payload">): Letter {
  const open = mail.get(letter.id);
  if (open) return { ...letter, state: "open", payload: cloneJson(open.payload) };
  return { ...letter, state: recalled.has(letter.id) ? "recalled" : "taken" };
}

/** @throws RUN_EXISTS, RUN_MOVED, RUN_PURGED, ARTIFACT_MISSING */
export function adopt(contents: Contents, copy: RunCopy, { token, to }: Move, now: number): void {
  const { runId } = copy.row;
  const present = contents.runs.get(runId);
  checkAdoption(
    copy,
    token,
    present && { ...present.row, epoch: present.epoch, moving: present.moving },
    contents.tombstones.get(runId),
  );
  checkArtifacts(contents, runId, copy.artifacts);
  if (present?.moving?.phase === "left") bury(contents, present, now);
  else if (present) remove(contents, present);
  const run = newRun({ ...copyRow(copy.row), wakeAt: null }, contents.lastNumber + 1, contents.make);
  run.epoch = copy.epoch;
  run.moving = { token, phase: "arriving", to, wakeAt: copy.row.wakeAt };
  for (const wait of copy.waits) run.waits.set(wait.effectId, { ...wait });
  for (const [path, value] of Object.entries(copy.indexed)) run.indexed.set(path, value);
  run.checkpoints = copy.checkpoints.map((checkpoint) => ({ ...checkpoint }));
  run.records.drop(copy.archivedBefore ?? 0);
  if (copy.blocked) {
    run.blocked = { ...copy.blocked };
    run.tried.add(copy.blocked.fingerprint);
  }
  for (const [name, value] of Object.entries(copy.counters ?? {})) run.counters.set(name, value);
  for (const letter of copy.letters) receive(contents, run, letter);
  contents.add(run);
  holdArtifacts(contents, runId, copy.artifacts);
  contents.changed.add(run);
}

function receive(contents: Contents, run: Run, { state, payload = null, ...letter }: Letter): void {
  contents.lastPosition += 1;
  run.known.set(letter.id, letter);
  if (state === "recalled") run.recalled.set(letter.id, true);
  if (state !== "open") return;
  const { digest: _, ...mail } = letter;
  run.mail.set(letter.id, { ...mail, payload: cloneJson(payload), position: contents.lastPosition });
  if (countsTowardsLimit(letter.kind)) run.mailCount += 1;
}

/** @throws CONFLICT */
export function adoptRecords({ runs, changed }: Contents, runId: string, token: string, given: readonly StoredRecord[]): void {
  const run = runs.get(runId);
  checkArriving(runId, run, run?.moving, token);
  const { records, row } = run;
  const next = given.filter(({ seq, hash }) => records.hashOf(seq) !== hash);
  checkFollows(runId, next, records.next, row.seq);
  for (const record of next) records.push(record);
  changed.add(run);
}

/** @throws CONFLICT when a run that is to be here has not arrived whole. */
export function settle(contents: Contents, token: string, to: keyof typeof phasesOf, waking: Waking): string[] {
  const decided = [...contents.runs.values()].filter(
    ({ moving }) => moving?.token === token && phasesOf[to].includes(moving.phase),
  );
  for (const { row, records } of to === "here" ? decided : []) checkWhole(row.runId, records.next, row.seq);
  for (const run of decided) {
    const moving = run.moving as NonNullable<Run["moving"]>;
    contents.changed.add(run);
    if (to === "left") {
      run.moving = { ...moving, phase: "left" };
      run.waits.clear();
    }
    if (to === "left") continue;
    if (to === "back" && moving.phase === "arriving") remove(contents, run);
    else goOn(contents, run, moving.wakeAt, waking);
  }
  return decided.map(({ row }) => row.runId);
}

/** A run is this store's from now on. */
function goOn(contents: Contents, run: Run, wakeAt: number | null, { wake, ring }: Waking): void {
  run.row.wakeAt = wakeAt;
  run.moving = undefined;
  contents.tombstones.delete(run.row.runId);
  if (isOver(run.row)) return;
  contents.live.add(run);
  if (run.mail.size > 0) wake(run);
  else if (wakeAt !== null) ring();
}

export function moves({ runs }: Contents): MoveUnderWay[] {
  return movesOf([...runs.values()].map(({ row, moving }) => ({ runId: row.runId, moving })));
}
