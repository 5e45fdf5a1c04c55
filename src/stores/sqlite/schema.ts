/**
 * The tables, and how a file comes to have them. `user_version` counts the migrations applied; a file with a higher number
 * was written by newer code and is refused.
 */
import type { DatabaseSync } from "node:sqlite";
import { AbstractRuntimeError } from "../../kernel/errors.ts";

/** "AbR1": marks the file as ours, so that another program's database is never written to. */
const applicationId = 0x41625231;

/**
 * Records and checkpoints have one integer key, `run * 2^26 + seq`, below 2^53: appended to in order, no second index. That
 * allows 134 million runs to a file and 67 million records to a run.
 */
export const seqBits = 2 ** 26;
export const lastSeq = seqBits - 1;
export const lastRun = 2 ** 53 / seqBits - 1;

const migrations: readonly string[] = [
  `
  -- A line in which runs stand for a worker: one for each workflow, queue and priority, and for those of a queue that have begun,
  -- which its rate does not hold up. Claims look at the heads of the lanes that they know: what stands in others costs nothing.
  CREATE TABLE lanes (
    lane INTEGER PRIMARY KEY,
    workflow_id TEXT NOT NULL,
    queue TEXT,
    priority INTEGER NOT NULL,
    begun INTEGER NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX lanes_queued ON lanes (workflow_id, queue, priority, begun) WHERE queue IS NOT NULL;
  CREATE UNIQUE INDEX lanes_plain ON lanes (workflow_id, priority) WHERE queue IS NULL;

  CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL UNIQUE,
    workflow_id TEXT NOT NULL,
    version TEXT NOT NULL,
    status TEXT NOT NULL,
    paused INTEGER NOT NULL,
    node TEXT NOT NULL,
    step INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    head TEXT NOT NULL,
    wake_at INTEGER,
    lane INTEGER NOT NULL,
    queue TEXT,
    queue_key TEXT,
    priority INTEGER NOT NULL,
    error TEXT,
    worker_id TEXT,
    epoch INTEGER NOT NULL,
    blocked TEXT,
    tried TEXT,
    -- Records before this seq were archived.
    archived_before INTEGER,
    -- On its way between two stores: token, phase and the other store as JSON, with the moment at which it would wake.
    moving TEXT,
    parent_run_id TEXT,
    tags TEXT,
    actor_id TEXT,
    session_id TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX runs_due ON runs (lane, wake_at) WHERE wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL;
  -- The same by key, for lanes whose heads are of keys that have no slot.
  CREATE INDEX runs_due_keys ON runs (lane, queue_key, wake_at)
    WHERE queue IS NOT NULL AND wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL;
  -- The slots in use. The lease itself is the counter: nothing is added or taken away beside it, so that no slot can leak.
  CREATE INDEX runs_slots ON runs (queue, queue_key) WHERE queue IS NOT NULL AND worker_id IS NOT NULL;
  CREATE INDEX runs_held ON runs (worker_id) WHERE worker_id IS NOT NULL;
  CREATE INDEX runs_blocked ON runs (run) WHERE blocked IS NOT NULL;
  CREATE INDEX runs_moving ON runs (moving ->> 'token') WHERE moving IS NOT NULL;
  CREATE INDEX runs_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL;
  CREATE INDEX runs_status ON runs (status);
  -- For queries. Nothing here is written again by a step: what changes with it is indexed of runs that nobody holds.
  CREATE INDEX runs_workflow ON runs (workflow_id);
  CREATE INDEX runs_queue ON runs (queue) WHERE queue IS NOT NULL;
  CREATE INDEX runs_session ON runs (session_id) WHERE session_id IS NOT NULL;
  CREATE INDEX runs_actor ON runs (actor_id) WHERE actor_id IS NOT NULL;
  CREATE INDEX runs_created ON runs (created_at);
  CREATE INDEX runs_updated ON runs (updated_at) WHERE worker_id IS NULL;
  CREATE INDEX runs_wake ON runs (wake_at) WHERE wake_at IS NOT NULL AND worker_id IS NULL;

  -- When runs of a queue with a rate began, for as long as that counts.
  CREATE TABLE begins (queue TEXT NOT NULL, at INTEGER NOT NULL, run INTEGER NOT NULL, PRIMARY KEY (queue, at, run))
    STRICT, WITHOUT ROWID;

  CREATE TABLE waits (
    run INTEGER NOT NULL,
    effect_id TEXT NOT NULL,
    wait_key TEXT NOT NULL,
    reason TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (run, effect_id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX waits_key ON waits (wait_key, run);
  CREATE INDEX waits_reason ON waits (reason, run);
  CREATE INDEX waits_since ON waits (since, run);

  -- Also of runs that have ended.
  CREATE TABLE run_tags (run INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (run, tag)) STRICT, WITHOUT ROWID;
  CREATE INDEX run_tags_tag ON run_tags (tag, run);
  -- Values as JSON.
  CREATE TABLE run_vars (run INTEGER NOT NULL, path TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (run, path))
    STRICT, WITHOUT ROWID;
  CREATE INDEX run_vars_value ON run_vars (path, value, run);

  -- Bodies and states are text, or compressed where they are large: see packed.ts.
  CREATE TABLE records (id INTEGER PRIMARY KEY, header TEXT NOT NULL, body ANY) STRICT;

  CREATE TABLE checkpoints (id INTEGER PRIMARY KEY, ordinal INTEGER NOT NULL, state ANY NOT NULL) STRICT;

  CREATE TABLE mailbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    -- NULL when it was taken, or recalled by its sender.
    payload TEXT,
    recalled INTEGER,
    digest TEXT NOT NULL,
    actor_id TEXT,
    at INTEGER NOT NULL,
    UNIQUE (run, id)
  ) STRICT;
  CREATE INDEX mailbox_open ON mailbox (run, position) WHERE payload IS NOT NULL;

  -- Parts as a JSON list; "begin" and "finish" are where they stand in the text.
  CREATE TABLE streams (
    run INTEGER NOT NULL,
    step INTEGER NOT NULL,
    effect_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    begin INTEGER NOT NULL,
    finish INTEGER NOT NULL,
    parts TEXT NOT NULL,
    UNIQUE (run, step, effect_id, attempt, begin)
  ) STRICT;

  -- Tags, name and description are kept folded for searching; "row" is the whole as JSON. They outlive their runs.
  CREATE TABLE snapshots (
    snapshot_id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    tags TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    row TEXT NOT NULL
  ) STRICT;
  CREATE INDEX snapshots_newest ON snapshots (created_at, snapshot_id);
  CREATE INDEX snapshots_run ON snapshots (run_id, created_at, snapshot_id);

  CREATE TABLE artifacts (
    artifact INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    tags TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    blob TEXT NOT NULL,
    pinned_until INTEGER NOT NULL,
    -- How many runs refer to it.
    runs INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX artifacts_newest ON artifacts (created_at, id);
  CREATE INDEX artifacts_blob ON artifacts (blob);
  CREATE INDEX artifacts_loose ON artifacts (pinned_until) WHERE runs = 0;
  CREATE TABLE artifact_runs (run INTEGER NOT NULL, artifact INTEGER NOT NULL, PRIMARY KEY (run, artifact)) STRICT, WITHOUT ROWID;
  CREATE INDEX artifact_runs_artifact ON artifact_runs (artifact);
  CREATE TRIGGER artifact_runs_held AFTER INSERT ON artifact_runs
    BEGIN UPDATE artifacts SET runs = runs + 1 WHERE artifact = new.artifact; END;
  CREATE TRIGGER artifact_runs_dropped AFTER DELETE ON artifact_runs
    BEGIN UPDATE artifacts SET runs = runs - 1 WHERE artifact = old.artifact; END;

  -- Bytes, in rows of one size, so that no write or read of a part takes long. A blob without a size is not whole.
  CREATE TABLE blobs (blob INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, size_bytes INTEGER, at INTEGER NOT NULL) STRICT;
  CREATE TABLE blob_chunks (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;

  -- What is left of runs that were purged.
  CREATE TABLE tombstones (
    run_id TEXT PRIMARY KEY,
    workflow_id TEXT NOT NULL,
    status TEXT NOT NULL,
    head TEXT NOT NULL,
    seq INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    purged_at INTEGER NOT NULL,
    note TEXT,
    epoch INTEGER
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE workers (worker_id TEXT PRIMARY KEY, expires_at INTEGER NOT NULL) STRICT;

  -- What is used of budgets, by the run that each was given to.
  CREATE TABLE counters (run INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (run, name)) STRICT, WITHOUT ROWID;

  -- Names the contents of the file, so that a cursor of another one is known for what it is.
  CREATE TABLE identity (id TEXT NOT NULL) STRICT;
  INSERT INTO identity VALUES (lower(hex(randomblob(8))));

  -- How many runs were ever blocked: while it stays, there is nothing new to lift.
  CREATE TABLE blocks (count INTEGER NOT NULL) STRICT;
  INSERT INTO blocks VALUES (0);
  `,
];

/** Brings a database to the present schema, under a lock, and sets how it is written. @throws FORMAT_NEWER, STORE_CORRUPT */
export function migrate(database: DatabaseSync, name: string): void {
  const pragma = (key: string): number => Number(Object.values(database.prepare(`PRAGMA ${key}`).get() ?? { key: 0 })[0]);
  const found = pragma("user_version");
  if (pragma("application_id") !== applicationId) {
    const tables = database.prepare("SELECT count(*) AS count FROM sqlite_schema").get() as { count: number };
    if (found !== 0 || tables.count > 0)
      throw new AbstractRuntimeError("STORE_CORRUPT", { store: name, problem: "it is another program's database" });
  }
  if (found > migrations.length)
    throw new AbstractRuntimeError("FORMAT_NEWER", { what: `the store ${name}`, found, known: migrations.length });
  database.exec("PRAGMA journal_mode = WAL");
  setDurable(database);
  if (found === migrations.length) return;
  database.exec("BEGIN IMMEDIATE");
  try {
    // Read again under the lock: another process may have migrated meanwhile.
    for (let version = pragma("user_version"); version < migrations.length; version++) {
      database.exec(migrations[version] as string);
      database.exec(`PRAGMA user_version = ${version + 1}`);
    }
    database.exec(`PRAGMA application_id = ${applicationId}`);
    database.exec("COMMIT");
  } catch (error) {
    if (database.isTransaction) database.exec("ROLLBACK");
    throw error;
  }
}

/** What a connection commits survives a power cut. */
export function setDurable(database: DatabaseSync): void {
  database.exec("PRAGMA synchronous = FULL");
  if (process.platform === "darwin") database.exec("PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON");
}
