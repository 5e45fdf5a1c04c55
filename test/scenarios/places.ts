/** Where scenarios keep their runs: how each store is opened, loses its process, and is damaged behind its back. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Clock, Store, StoredRecord } from "abstractruntime";
import { filesStore } from "abstractruntime/files";
import { memoryStore } from "abstractruntime/memory";
import { postgresStore } from "abstractruntime/postgres";
import { sqliteStore } from "abstractruntime/sqlite";
import pg from "pg";
import { afterAll } from "vitest";
import type { Checkpoint } from "../../src/kernel/checkpoint.ts";
import type { Loaded } from "../../src/kernel/transition.ts";
import { nameOf } from "../../src/stores/files/names.ts";
import { emptySchema, newSchema, serverUrl } from "../stores/postgres-server.ts";
import { lineOf, recordOf } from "../../src/stores/files/record-line.ts";
import { unpacked } from "../../src/stores/sqlite/packed.ts";

export const storeKinds = ["memory", "sqlite", "files", "postgres"] as const;
export type StoreKind = (typeof storeKinds)[number];

export type Tamper = (record: StoredRecord) => StoredRecord;

/** The place of one world. Stores opened in it one after another find the same runs. */
export interface Place {
  /** Of a database, as `--store` takes it: where the user may have tables of his own. */
  readonly address?: string;
  open(clock: Clock): Promise<Store>;
  /** The process that opened `store` is gone, and its host knows. */
  vanish(store: Store, workerId: string): Promise<void>;
  /** Changes a stored record while no store is open. Answers what undoes it. */
  damage(runId: string, seq: number, tamper: Tamper): Promise<() => Promise<void>>;
  /** Changes the text of every checkpoint of a run while no store is open. */
  damageCheckpoints(runId: string): Promise<void>;
  remove(): Promise<void>;
}

export async function placeOf(kind: StoreKind): Promise<Place> {
  switch (kind) {
    case "memory":
      return new MemoryPlace();
    case "sqlite":
      return new SqlitePlace();
    case "files":
      return new FilesPlace();
    case "postgres":
      return PostgresPlace.take();
  }
}

const nude = (text: string): string => text.replace('"node"', '"nude"');

/** One store that stays open. Nobody can reach its contents: damage is what is read instead. */
class MemoryPlace implements Place {
  #store: Store | undefined;
  readonly #tampered = new Map<string, Tamper>();
  readonly #badCheckpoints = new Set<string>();

  async open(clock: Clock): Promise<Store> {
    this.#store ??= memoryStore({ clock });
    return this.#read(this.#store);
  }

  /** What a mark of life says at once where processes share a host. */
  async vanish(store: Store, workerId: string): Promise<void> {
    await store.retire(workerId);
  }

  async damage(runId: string, seq: number, tamper: Tamper): Promise<() => Promise<void>> {
    this.#tampered.set(`${runId} ${seq}`, tamper);
    return async () => void this.#tampered.delete(`${runId} ${seq}`);
  }

  async damageCheckpoints(runId: string): Promise<void> {
    this.#badCheckpoints.add(runId);
  }

  async remove(): Promise<void> {
    await this.#store?.close();
  }

  #read(store: Store): Store {
    const record = (runId: string) => (stored: StoredRecord) => this.#tampered.get(`${runId} ${stored.seq}`)?.(stored) ?? stored;
    const checkpoint = (runId: string, text: Checkpoint): Checkpoint =>
      this.#badCheckpoints.has(runId) ? { ...text, text: nude(text.text) } : text;
    const loaded = (load: Loaded): Loaded => ({
      ...load,
      ...(load.checkpoint ? { checkpoint: checkpoint(load.row.runId, load.checkpoint) } : {}),
      tail: load.tail.map(record(load.row.runId)),
    });
    return new Proxy(store, {
      get(target, name) {
        const method = Reflect.get(target, name);
        if (name === "close") return async () => undefined;
        if (typeof method !== "function") return method;
        const call = method.bind(target);
        if (name === "load")
          return async (...args: unknown[]) => {
            const found = await call(...args);
            return found && loaded(found);
          };
        if (name === "claim") return async (...args: unknown[]) => (await call(...args)).map(loaded);
        if (name === "records")
          return async (runId: string, ...args: unknown[]) => (await call(runId, ...args)).map(record(runId));
        if (name === "checkpoints")
          return async (runId: string) => (await call(runId)).map((text: Checkpoint) => checkpoint(runId, text));
        return call;
      },
    });
  }
}

class SqlitePlace implements Place {
  readonly #directory = mkdtempSync(join(tmpdir(), "scenario-"));

  get #path(): string {
    return join(this.#directory, "runs.db");
  }

  get address(): string {
    return `sqlite:${this.#path}`;
  }

  open(clock: Clock): Promise<Store> {
    return sqliteStore(this.#path, { clock });
  }

  async vanish(store: Store, workerId: string): Promise<void> {
    await store.close();
    // The system took the lock away; the file stays.
    const marks = `${this.#path}-workers`;
    if (!existsSync(marks)) mkdirSync(marks);
    writeFileSync(join(marks, encodeURIComponent(workerId)), "");
  }

  async damage(runId: string, seq: number, tamper: Tamper): Promise<() => Promise<void>> {
    return this.#sql((database) => {
      const { run } = database.prepare("SELECT run FROM runs WHERE run_id = ?").get(runId) as { run: number };
      const id = run * 2 ** 26 + seq;
      const { header, body } = database.prepare("SELECT header, body FROM records WHERE id = ?").get(id) as Record<
        string,
        string
      >;
      const stored = { header: header as string, body: unpacked(body as string | Uint8Array | null) };
      const update = (database: DatabaseSync, { header, body }: Pick<StoredRecord, "header" | "body">) =>
        database.prepare("UPDATE records SET header = ?, body = ? WHERE id = ?").run(header, body, id);
      update(database, tamper({ seq, hash: "", header: stored.header, body: stored.body }));
      return async () => void this.#sql((again) => update(again, stored));
    });
  }

  async damageCheckpoints(runId: string): Promise<void> {
    this.#sql((database) =>
      database
        .prepare(
          "UPDATE checkpoints SET state = replace(state, '\"node\"', '\"nude\"') WHERE id / 67108864 = (SELECT run FROM runs WHERE run_id = ?)",
        )
        .run(runId),
    );
  }

  async remove(): Promise<void> {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #sql<T>(change: (database: DatabaseSync) => T): T {
    const database = new DatabaseSync(this.#path);
    try {
      return change(database);
    } finally {
      database.close();
    }
  }
}

class FilesPlace implements Place {
  readonly #directory = mkdtempSync(join(tmpdir(), "scenario-"));
  #clock: Clock | undefined;

  open(clock: Clock): Promise<Store> {
    this.#clock = clock;
    return filesStore(this.#directory, { clock });
  }

  /** The lock goes with the process, and with it every worker: whoever claims next finds all leases to be those of the dead. */
  async vanish(store: Store): Promise<void> {
    await store.close();
    const next = await filesStore(this.#directory, { clock: this.#clock });
    await next.claim({ workerId: "next", fingerprint: "", workflows: [] }, { limit: 0 });
    await next.close();
  }

  async damage(runId: string, seq: number, tamper: Tamper): Promise<() => Promise<void>> {
    const stored = this.#change(runId, seq, tamper);
    return async () => void this.#change(runId, seq, () => stored);
  }

  async damageCheckpoints(runId: string): Promise<void> {
    const run = this.#of(runId);
    for (const name of readdirSync(run).filter((name) => name.startsWith("checkpoint-")))
      writeFileSync(join(run, name), nude(readFileSync(join(run, name), "utf8")));
  }

  async remove(): Promise<void> {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Where the files of a run are, with nothing ahead of them that would mend them. */
  #of(runId: string): string {
    for (const name of readdirSync(this.#directory)) if (name.startsWith("ahead-")) rmSync(join(this.#directory, name));
    return join(this.#directory, "runs", nameOf(runId));
  }

  /** Changes a line, and where the lines behind it are said to be. Answers the record that stood there. */
  #change(runId: string, seq: number, tamper: Tamper): StoredRecord {
    const [ledger, row] = [join(this.#of(runId), "ledger.jsonl"), join(this.#of(runId), "run.json")];
    const lines = readFileSync(ledger, "utf8").split("\n");
    const { reach, ...kept } = JSON.parse(readFileSync(row, "utf8"));
    const i = seq - reach.ledger.first;
    const record = recordOf(lines[i] as string) as StoredRecord;
    const line = lineOf(tamper(record)).slice(0, -1);
    const grown = Buffer.byteLength(line) - Buffer.byteLength(lines[i] as string);
    lines[i] = line;
    reach.ledger.sizeBytes += grown;
    for (const checkpoint of reach.checkpoints) if (checkpoint.seq >= seq) checkpoint.at += grown;
    writeFileSync(ledger, lines.join("\n"));
    writeFileSync(row, JSON.stringify({ ...kept, reach }));
    return record;
  }
}

/** A schema for all worlds of a test file, one after another: emptied, it costs less than to make its tables again. */
class PostgresPlace implements Place {
  static #free: PostgresPlace[] = [];
  static #all: PostgresPlace[] = [];
  readonly #schema = newSchema();
  readonly #pool = new pg.Pool({ connectionString: serverUrl(), max: 4 });

  static take(): PostgresPlace {
    const free = PostgresPlace.#free.pop();
    if (free) return free;
    const made = new PostgresPlace();
    PostgresPlace.#all.push(made);
    return made;
  }

  /** At the end of the test file. */
  static async end(): Promise<void> {
    for (const place of PostgresPlace.#all.splice(0)) {
      await place.#pool.query(`DROP SCHEMA IF EXISTS "${place.#schema}" CASCADE`);
      await place.#pool.end();
    }
    PostgresPlace.#free = [];
  }

  get address(): string {
    return `${serverUrl()}?schema=${this.#schema}`;
  }

  open(clock: Clock): Promise<Store> {
    return postgresStore({ pool: this.#pool, schema: this.#schema, clock, listen: false });
  }

  /** Its lease runs out; here nobody waits for that. */
  async vanish(store: Store, workerId: string): Promise<void> {
    await store.retire(workerId);
    await store.close();
  }

  async damage(runId: string, seq: number, tamper: Tamper): Promise<() => Promise<void>> {
    const [runs, records] = [`"${this.#schema}".runs`, `"${this.#schema}".records`];
    const where = "WHERE runs.run = records.run AND runs.run_id = $1 AND records.seq = $2";
    const { rows } = await this.#pool.query(`SELECT header, body FROM ${records}, ${runs} ${where}`, [runId, seq]);
    const stored = rows[0] as Pick<StoredRecord, "header" | "body">;
    const update = async ({ header, body }: Pick<StoredRecord, "header" | "body">): Promise<void> => {
      await this.#pool.query(`UPDATE ${records} SET header = $3, body = $4 FROM ${runs} ${where}`, [runId, seq, header, body]);
    };
    await update(tamper({ seq, hash: "", ...stored }));
    return () => update(stored);
  }

  async damageCheckpoints(runId: string): Promise<void> {
    await this.#pool.query(
      `UPDATE "${this.#schema}".checkpoints SET state = replace(state, '"node"', '"nude"')
       FROM "${this.#schema}".runs WHERE runs.run = checkpoints.run AND runs.run_id = $1`,
      [runId],
    );
  }

  async remove(): Promise<void> {
    // No store was ever opened in one that is new.
    const { rows } = await this.#pool.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", [this.#schema]);
    if (rows.length > 0) await emptySchema(this.#pool, this.#schema);
    PostgresPlace.#free.push(this);
  }
}

afterAll(() => PostgresPlace.end());
