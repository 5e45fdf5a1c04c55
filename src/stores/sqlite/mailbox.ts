/** What is sent to runs and taken by them. Inside a transaction of the group, see Q1 and Q2 in `index.ts`. */
import type { Clock } from "../../kernel/clock.ts";
import { isEnded } from "../../kernel/run.ts";
import { countsTowardsLimit, type Delivery, type Message, messageDigest } from "../../kernel/message.ts";
import type { Moving } from "../../kernel/moving.ts";
import type { Wakes } from "../listeners.ts";
import { blockOf } from "../table-row.ts";
import { movingOf, type Reader } from "./read.ts";
import { type Cached, type Rows, wake } from "./rows.ts";
import { isRetried } from "../ended.ts";

/** A message, as far as its place in the mailbox goes. */
interface Place {
  run: number;
  id: string;
  state: "open" | "taken" | "recalled";
}

export class Mailbox {
  readonly #reader: Reader;
  readonly #rows: Rows;
  readonly #wakes: Wakes;
  readonly #clock: Clock;
  /** Mail that counts towards the limit, by run: counted once a transaction, however much is delivered. */
  readonly #counts = new Map<number, number>();

  constructor(reader: Reader, rows: Rows, wakes: Wakes, clock: Clock) {
    this.#reader = reader;
    this.#rows = rows;
    this.#wakes = wakes;
    this.#clock = clock;
  }

  begin(): void {
    this.#counts.clear();
  }

  deliver(message: Message, limit?: number): Delivery {
    const { runId, id, kind, key, payload, ifWaiting, ifFailed, recall } = message;
    const row = this.#rows.get(runId);
    if (!row) return { kind: "no_run" };
    const digest = messageDigest(message);
    const known = this.#reader.prepare("SELECT digest FROM mailbox WHERE run = ? AND id = ?").get(row.run, id);
    if (known) return { kind: "duplicate", same: known.digest === digest };
    const moving = movingOf(row) ?? (recall && this.#movingOf(recall.runId));
    if (moving) return { kind: "moved", to: moving.to };
    const { status } = row;
    if (ifFailed && status !== "failed") return { kind: "not_failed", status };
    if (!ifFailed && isEnded(row) && !isRetried({ status, wakeAt: row.wake_at })) return { kind: "ended", status };
    if (ifWaiting !== undefined && !this.#isWaiting(row.run, ifWaiting, key)) return { kind: "not_waiting" };
    const recalled = recall && this.#find(recall);
    if (recalled?.state === "taken") return { kind: "taken" };
    if (countsTowardsLimit(kind)) {
      if (limit !== undefined && this.#count(row.run) >= limit && !this.#isAwaited(row.run, key)) return { kind: "full", limit };
      const count = this.#counts.get(row.run);
      if (count !== undefined) this.#counts.set(row.run, count + 1);
    }
    if (recalled?.state === "open") this.#remove(recalled, 1);
    const now = this.#clock.now();
    this.#reader
      .prepare("INSERT INTO mailbox (run, id, kind, key, payload, digest, actor_id, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
      .run(row.run, id, kind, key, JSON.stringify(payload), digest, message.actorId ?? null, now);
    return this.#wake(row, kind, now);
  }

  #movingOf(runId: string): Moving | undefined {
    const row = this.#rows.get(runId);
    return row && movingOf(row);
  }

  /** Whether the run waits for this very message: a full mailbox must not keep it from going on, which is what empties it. */
  #isAwaited(run: number, key: string): boolean {
    if (!this.#isWaiting(run, true, key)) return false;
    const sql = "SELECT 1 FROM mailbox INDEXED BY mailbox_open WHERE run = ? AND payload IS NOT NULL AND key = ? LIMIT 1";
    return this.#reader.prepare(sql).get(run, key) === undefined;
  }

  /** A holder sees it when it parks, at the latest; should the holder die, its run is made ready (S5). So its row stays as it is. */
  #wake(row: Cached, kind: Message["kind"], now: number): Delivery {
    if (row.worker_id !== null) {
      this.#wakes.holders.add(row.worker_id);
      return { kind: "stored", holder: row.worker_id };
    }
    // A cancel, say, needs none of the code that is missing.
    if (kind === "control" && row.blocked !== null && !blockOf(row.blocked).quarantine) {
      row.blocked = null;
      row.tried = null;
      row.changed = true;
    }
    wake(row, now);
    this.#wakes.ready = true;
    return { kind: "stored" };
  }

  /** Why a run cannot take a message; undefined when it can. */
  obstacle(run: number, id: string): string | undefined {
    const state = this.#stateOf(run, id);
    if (state === "open") return undefined;
    return `message "${id}" is not there to be taken${state === "recalled" ? ": its sender has recalled it" : ""}`;
  }

  take(run: number, ids: readonly string[]): void {
    for (const id of ids) this.#remove({ run, id }, null);
  }

  #remove({ run, id }: Pick<Place, "run" | "id">, recalled: 1 | null): void {
    this.#counts.delete(run);
    this.#reader.prepare("UPDATE mailbox SET payload = NULL, recalled = ? WHERE run = ? AND id = ?").run(recalled, run, id);
  }

  #find({ runId, id }: { runId: string; id: string }): Place | undefined {
    const run = this.#rows.get(runId)?.run;
    const state = run === undefined ? undefined : this.#stateOf(run, id);
    return run === undefined || !state ? undefined : { run, id, state };
  }

  #stateOf(run: number, id: string): Place["state"] | undefined {
    const sql =
      "SELECT iif(payload IS NOT NULL, 'open', iif(recalled, 'recalled', 'taken')) AS state FROM mailbox WHERE run = ? AND id = ?";
    return this.#reader.prepare(sql).get(run, id)?.state as Place["state"] | undefined;
  }

  #isWaiting(run: number, effect: string | true, key: string): boolean {
    const found =
      effect === true
        ? this.#reader.prepare("SELECT 1 FROM waits INDEXED BY waits_key WHERE wait_key = ? AND run = ? LIMIT 1").get(key, run)
        : this.#reader.prepare("SELECT 1 FROM waits WHERE run = ? AND effect_id = ? AND wait_key = ?").get(run, effect, key);
    return found !== undefined;
  }

  #count(run: number): number {
    let count = this.#counts.get(run);
    if (count === undefined) {
      const sql = `SELECT count(*) AS count FROM mailbox INDEXED BY mailbox_open
        WHERE run = ? AND payload IS NOT NULL AND kind NOT IN ('control', 'child_end')`;
      count = this.#reader.prepare(sql).get(run)?.count as number;
      this.#counts.set(run, count);
    }
    return count;
  }
}
