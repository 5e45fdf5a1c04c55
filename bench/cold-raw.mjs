// What `cold-run.mjs` leaves in its file, written by hand: two tables and their indexes, a run, four records, two commits.
import { DatabaseSync } from "node:sqlite";

const database = new DatabaseSync(process.argv[2]);
database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
database.exec(`BEGIN;
  CREATE TABLE runs (run INTEGER PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, seq INTEGER NOT NULL, wake_at INTEGER) STRICT;
  CREATE INDEX runs_due ON runs (wake_at) WHERE wake_at IS NOT NULL;
  CREATE TABLE records (id INTEGER PRIMARY KEY, header TEXT NOT NULL, body TEXT) STRICT;
  CREATE TABLE checkpoints (id INTEGER PRIMARY KEY, state TEXT NOT NULL) STRICT;
  CREATE TABLE mailbox (position INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, id TEXT NOT NULL, payload TEXT, UNIQUE (run, id)) STRICT;
  COMMIT`);
const insert = database.prepare("INSERT INTO records VALUES (?, ?, ?)");
database.exec("BEGIN IMMEDIATE; INSERT INTO runs VALUES (1, 'bench', 'running', 1, NULL)");
for (const seq of [0, 1]) insert.run(seq, "h".repeat(300), "b".repeat(120));
database.exec("COMMIT; BEGIN IMMEDIATE; UPDATE runs SET status = 'completed', seq = 3 WHERE run = 1");
for (const seq of [2, 3]) insert.run(seq, "h".repeat(300), "b".repeat(120));
database.exec("COMMIT");
console.log("done");
database.close();
