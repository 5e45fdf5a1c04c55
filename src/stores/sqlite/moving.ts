/** Runs on their way between two stores. Inside a transaction of the group, see Q1 and Q2 in `index.ts`. */
import type { Clock } from "../../kernel/clock.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { OpenWait } from "../../kernel/run.ts";
import type { Blocked } from "../../kernel/transition.ts";
import type { Letter } from "../../kernel/message.ts";
import type { Moving, RunCopy } from "../../kernel/moving.ts";
import { isOver } from "../ended.ts";
import type { Wakes } from "../listeners.ts";
import {
  checkLength,
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
import { artifactIdsOf, checkArtifacts, holdArtifacts } from "./artifacts.ts";
import { countersOf, writeCounters } from "./counters.ts";
import { indexedOf, insertTags, writeIndexed } from "./indexed.ts";
import { insertRun, insertWaits } from "./insert.ts";
import type { Lanes } from "./lanes.ts";
import { packed } from "./packed.ts";
import { drivable, intact, movingOf, type Reader, type RunTableRow } from "./read.ts";
import { runRow, letterOf, waitOf } from "../table-row.ts";
import { bury, remove, tombstoneOf } from "./retention.ts";
import { lastSeq, seqBits } from "./schema.ts";

export class Moves {
  readonly #reader: Reader;
  readonly #lanes: Lanes;
  readonly #wakes: Wakes;
  readonly #clock: Clock;
  readonly #store: string;

  constructor(reader: Reader, lanes: Lanes, wakes: Wakes, clock: Clock, store: string) {
    this.#reader = reader;
    this.#lanes = lanes;
    this.#wakes = wakes;
    this.#clock = clock;
    this.#store = store;
  }

  fence(runIds: readonly string[], { token, to }: Move): Refusal[] {
    const among = new Set(runIds);
    const runs = [...among].map((runId) => this.#reader.run(runId));
    const refused: Refusal[] = [];
    for (const [i, runId] of [...among].entries()) {
      const run = runs[i];
      const parentRunId = run?.parent_run_id ?? undefined;
      const obstacle = fenceObstacle(run && { moving: movingOf(run) }, token);
      if (obstacle !== undefined) refused.push({ runId, problem: obstacle });
      else if (parentRunId !== undefined && this.#stays(this.#reader.run(parentRunId), among))
        refused.push({ runId, problem: withoutParent(parentRunId) });
      const children = this.#reader.prepare("SELECT * FROM runs INDEXED BY runs_parent WHERE parent_run_id = ?");
      for (const child of children.all(runId) as unknown as RunTableRow[])
        if (this.#stays(child, among)) refused.push({ runId: child.run_id, problem: leftBehind(runId) });
    }
    if (refused.length === 0) for (const run of runs) if (run && run.moving === null) this.#fence(run, { token, to });
    return refused;
  }

  #stays(run: RunTableRow | undefined, among: ReadonlySet<string>): boolean {
    return run !== undefined && !among.has(run.run_id) && movingOf(run)?.phase !== "left";
  }

  /** Whoever held it is a stranger, here and at the other store. */
  #fence({ run, queue, worker_id }: RunTableRow, { token, to }: Move): void {
    const now = this.#clock.now();
    const { wakeAt } = this.#reader
      .prepare(
        `SELECT iif(worker_id IS NULL, wake_at, iif(${drivable}, min(coalesce(wake_at, ?2), ?2), NULL)) AS wakeAt
         FROM runs WHERE run = ?1`,
      )
      .get(run, now) as { wakeAt: number | null };
    this.#reader
      .prepare("UPDATE runs SET worker_id = NULL, epoch = epoch + 1, wake_at = NULL, moving = ? WHERE run = ?")
      .run(JSON.stringify({ token, phase: "leaving", to, wakeAt }), run);
    if (worker_id !== null && queue !== null) this.#wakes.freed.add(queue);
  }

  /** @throws RUN_EXISTS, RUN_MOVED, RUN_PURGED, RUN_TOO_LONG, ARTIFACT_MISSING: before anything is written. */
  adopt(copy: RunCopy, { token, to }: Move): void {
    const { row } = copy;
    const { runId } = row;
    const reader = this.#reader;
    const present = reader.run(runId);
    const moving = present && movingOf(present);
    const tombstone = tombstoneOf(reader, runId);
    checkAdoption(copy, token, present && { ...present, moving }, tombstone);
    checkLength(copy, lastSeq);
    checkArtifacts(reader, runId, copy.artifacts);
    if (present && moving?.phase === "left") bury(reader, present, this.#clock.now());
    else if (present) remove(reader, present);

    const run = insertRun(reader, this.#lanes, this.#store, row, { wakeAt: null, workerId: null, epoch: copy.epoch });
    const { blocked, archivedBefore } = copy;
    reader
      .prepare("UPDATE runs SET moving = ?, archived_before = ?, blocked = ?, tried = ? WHERE run = ?")
      .run(
        JSON.stringify({ token, phase: "arriving", to, wakeAt: row.wakeAt }),
        archivedBefore ?? null,
        blocked ? JSON.stringify(blocked) : null,
        blocked ? JSON.stringify([blocked.fingerprint]) : null,
        run,
      );
    insertTags(reader, run, row.tags ?? []);
    writeIndexed(reader, run, copy.indexed);
    insertWaits(reader, run, copy.waits);
    writeCounters(reader, run, copy.counters);
    for (const { seq, ordinal, text } of copy.checkpoints)
      reader.prepare("INSERT INTO checkpoints VALUES (?, ?, ?)").run(run * seqBits + seq, ordinal, packed(text));
    for (const letter of copy.letters) this.#receive(run, letter);
    holdArtifacts(reader, run, copy.artifacts);
  }

  #receive(run: number, { id, kind, key, actorId, at, digest, state, payload = null }: Letter): void {
    this.#reader
      .prepare(
        "INSERT INTO mailbox (run, id, kind, key, payload, recalled, digest, actor_id, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
      )
      .run(
        run,
        id,
        kind,
        key,
        state === "open" ? JSON.stringify(payload) : null,
        state === "recalled" ? 1 : null,
        digest,
        actorId ?? null,
        at,
      );
  }

  /** @throws CONFLICT, before anything is written. */
  adoptRecords(runId: string, token: string, given: readonly StoredRecord[]): void {
    const run = this.#reader.run(runId);
    const moving = run && movingOf(run);
    checkArriving(runId, run, moving, token);
    const base = run.run * seqBits;
    const header = this.#reader.prepare("SELECT header FROM records WHERE id = ?");
    const records = given.filter((record) => header.get(base + record.seq)?.header !== record.header);
    const next = this.#nextSeq(run);
    checkFollows(runId, records, next, run.seq);
    const insert = this.#reader.prepare("INSERT INTO records VALUES (?, ?, ?)");
    for (const record of records) insert.run(base + record.seq, record.header, packed(record.body));
  }

  #nextSeq({ run, archived_before }: RunTableRow): number {
    const base = run * seqBits;
    const { last } = this.#reader
      .prepare("SELECT max(id) AS last FROM records WHERE id BETWEEN ? AND ?")
      .get(base, base + seqBits - 1) as { last: number | null };
    return last === null ? (archived_before ?? 0) : last - base + 1;
  }

  /** @throws CONFLICT when a run that is to be here has not arrived whole: before anything is written. */
  settle(token: string, to: keyof typeof phasesOf): string[] {
    const runs = this.#reader
      .prepare("SELECT * FROM runs INDEXED BY runs_moving WHERE moving IS NOT NULL AND moving ->> 'token' = ? ORDER BY run")
      .all(token) as unknown as RunTableRow[];
    const decided = runs.filter((run) => phasesOf[to].includes((movingOf(run) as Moving).phase));
    for (const run of to === "here" ? decided : []) checkWhole(run.run_id, this.#nextSeq(run), run.seq);
    for (const run of decided) {
      if (to === "left") this.#leave(run);
      else if (to === "back" && movingOf(run)?.phase === "arriving") remove(this.#reader, run);
      else this.#goOn(run);
    }
    return decided.map(({ run_id }) => run_id);
  }

  #leave({ run }: RunTableRow): void {
    this.#reader.prepare("UPDATE runs SET moving = json_set(moving, '$.phase', 'left') WHERE run = ?").run(run);
    this.#reader.prepare("DELETE FROM waits WHERE run = ?").run(run);
  }

  /** A run is this store's from now on. */
  #goOn(row: RunTableRow): void {
    const { wakeAt } = JSON.parse(row.moving as string) as { wakeAt: number | null };
    const now = this.#clock.now();
    const hasMail = this.#reader.hasMail(row, 0);
    const wakesAt = isOver(row) ? null : hasMail ? Math.min(wakeAt ?? now, now) : wakeAt;
    this.#reader.prepare("UPDATE runs SET moving = NULL, wake_at = ? WHERE run = ?").run(wakesAt, row.run);
    this.#reader.prepare("DELETE FROM tombstones WHERE run_id = ?").run(row.run_id);
    // A block that nobody's code has been compared with since.
    if (row.blocked !== null) this.#reader.prepare("UPDATE blocks SET count = count + 1").run();
    if (wakesAt !== null) this.#wakes.ready = true;
  }
}

export function copyOf(reader: Reader, runId: string): RunCopy | undefined {
  return reader.atOnce(() => {
    const row = reader.run(runId);
    return row && intact(runId, row.seq, () => copyRun(reader, row));
  });
}

function copyRun(reader: Reader, row: RunTableRow): RunCopy {
  const { run, moving, archived_before, blocked, epoch } = row;
  const kept = reader.checkpoints(row.run_id);
  const counters = countersOf(reader, run);
  const wakeAt = moving === null ? row.wake_at : (JSON.parse(moving) as { wakeAt: number | null }).wakeAt;
  return {
    row: { ...runRow(row), wakeAt },
    epoch,
    waits: waitsOf(reader, run),
    indexed: indexedOf(reader, run),
    checkpoints: kept.filter(({ ordinal }, i) => ordinal === 0 || i === kept.length - 1),
    ...(archived_before === null ? {} : { archivedBefore: archived_before }),
    ...(blocked === null ? {} : { blocked: JSON.parse(blocked) as Blocked }),
    artifacts: artifactIdsOf(reader, run),
    ...(Object.keys(counters).length > 0 ? { counters } : {}),
    letters: lettersOf(reader, run),
  };
}

function waitsOf(reader: Reader, run: number): OpenWait[] {
  return reader
    .prepare("SELECT effect_id, wait_key, reason, since, until FROM waits WHERE run = ? ORDER BY effect_id")
    .all(run)
    .map(waitOf);
}

function lettersOf(reader: Reader, run: number): Letter[] {
  return reader
    .prepare("SELECT id, kind, key, payload, recalled, digest, actor_id, at FROM mailbox WHERE run = ? ORDER BY position")
    .all(run)
    .map(letterOf);
}

export function movesUnderWay(reader: Reader): MoveUnderWay[] {
  const rows = reader
    .prepare("SELECT run_id, moving FROM runs INDEXED BY runs_moving WHERE moving IS NOT NULL ORDER BY run")
    .all() as unknown as Pick<RunTableRow, "run_id" | "moving">[];
  return movesOf(rows.map((row) => ({ runId: row.run_id, moving: movingOf(row) })));
}
