/** A process that drives the runs of a store beside others, tells its parent what it saw, and does what it is told. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { DatabaseSync, StatementSync } from "node:sqlite";
import { createRuntime, isError } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { mixedWorkflows } from "./mixed.ts";
import { fileOutside } from "./workload.ts";

export interface PeerTask {
  directory: string;
  /** `idle` does nothing: what it measures is the machine. */
  idle?: boolean;
  /** Longest time that a stop waits for effects. */
  drainMs?: number;
  leaseMs?: number;
}

export type Order =
  /** Answer the run when the time of day has come. */
  | { do: "answer"; runId: string; at: number; text: string }
  /** Let the effects that wait for it go on. */
  | { do: "open gates" }
  | { do: "report" }
  /** Until SIGCONT. By itself, or it might be stopped in the middle of a transaction, and keep the file locked. */
  | { do: "sleep" }
  | { do: "stop" };

export type Told =
  | { kind: "ready" }
  | { kind: "answered"; runId: string; code: string }
  | { kind: "sleeping" }
  | { kind: "stopping" }
  | { kind: "stopped" }
  | { kind: "report"; report: Report };

/** Longest times, in milliseconds. A turn is what lies between two ticks of a timer of 5 ms. */
export interface Report {
  /** Delay of the event loop, by Node's own measure. */
  loopDelayMs: number;
  /** A turn, beyond the 5 ms, and how much of it SQLite took: the rest is this process's own work, and the machine. */
  turnMs: number;
  turnInSqliteMs: number;
  /** Waiting for the file's lock in one turn: what another process makes longer. */
  lockMs: number;
  /** One COMMIT, with its fsync. */
  commitMs: number;
  /** One synchronous section of the store: from BEGIN to the end of COMMIT. */
  sectionMs: number;
  transactions: number;
  /** Transactions that found the file locked, and tried again. */
  busy: number;
}

const { directory, idle = false, drainMs, leaseMs = 30_000 } = JSON.parse(process.argv[2] as string) as PeerTask;
const tell = (told: Told): void => void process.send?.(told);

// ---- Measuring -----------------------------------------------------------------------------------------------------

const longest: Report = {
  loopDelayMs: 0,
  turnMs: 0,
  turnInSqliteMs: 0,
  lockMs: 0,
  commitMs: 0,
  sectionMs: 0,
  transactions: 0,
  busy: 0,
};
const raise = (name: keyof Report, ms: number): void => {
  if (ms > longest[name]) longest[name] = ms;
};
const turn = { since: performance.now(), lockMs: 0, sqliteMs: 0 };
let sectionSince = 0;

function timed<T>(sql: string, call: () => T): T {
  const begins = sql.startsWith("BEGIN IMMEDIATE");
  const ends = sql.startsWith("COMMIT") || sql.startsWith("ROLLBACK");
  const since = performance.now();
  if (begins) {
    sectionSince = since;
    longest.transactions += 1;
  }
  try {
    return call();
  } catch (error) {
    if (begins) longest.busy += 1;
    throw error;
  } finally {
    const now = performance.now();
    turn.sqliteMs += now - since;
    if (begins) turn.lockMs += now - since;
    if (ends) {
      raise("commitMs", now - since);
      raise("sectionMs", now - sectionSince);
    }
  }
}

for (const method of ["run", "get", "all"] as const) {
  const inner = StatementSync.prototype[method] as (...args: unknown[]) => unknown;
  StatementSync.prototype[method] = function (this: StatementSync, ...args: unknown[]) {
    return timed(this.sourceSQL, () => inner.apply(this, args));
  } as never;
}
const exec = DatabaseSync.prototype.exec;
DatabaseSync.prototype.exec = function (this: DatabaseSync, sql: string) {
  return timed(sql, () => exec.call(this, sql));
};

const delay = monitorEventLoopDelay({ resolution: 1 });
function endTurn(): void {
  const now = performance.now();
  const turnMs = Math.max(0, now - turn.since - 5);
  if (turnMs > longest.turnMs) {
    longest.turnMs = turnMs;
    longest.turnInSqliteMs = turn.sqliteMs;
  }
  raise("lockMs", turn.lockMs);
  Object.assign(turn, { since: now, lockMs: 0, sqliteMs: 0 });
}
const ticking = setInterval(endTurn, 5);

function startMeasuring(): void {
  delay.enable();
  endTurn();
  for (const name of Object.keys(longest) as (keyof Report)[]) longest[name] = 0;
}

// ---- Driving -------------------------------------------------------------------------------------------------------

let openGates = (): void => undefined;
const gates = new Promise<void>((resolve) => {
  openGates = resolve;
});
const runtime = idle
  ? undefined
  : await createRuntime({
      store: await sqliteStore(`${directory}/runs.db`),
      workflows: mixedWorkflows(fileOutside(`${directory}/outside.jsonl`, false), gates),
      // Few at a time: more transactions, more meetings at the lock.
      scheduler: { pollMs: 50, concurrency: 25, leaseMs },
    });

let stopping = false;
async function stop(): Promise<void> {
  if (stopping) return;
  stopping = true;
  tell({ kind: "stopping" });
  clearInterval(ticking);
  delay.disable();
  await runtime?.stop(drainMs === undefined ? {} : { timeoutMs: drainMs });
  tell({ kind: "stopped" });
  process.disconnect();
}

async function answer(runId: string, at: number, text: string): Promise<void> {
  // Both peers leave this loop in the same millisecond.
  while (Date.now() < at);
  let code = "accepted";
  try {
    await runtime?.respond(runId, text);
  } catch (error) {
    code = isError(error) ? error.code : String(error);
  }
  tell({ kind: "answered", runId, code });
}

process.on("message", (order: Order) => {
  switch (order.do) {
    case "answer":
      return void answer(order.runId, order.at, order.text);
    case "open gates":
      return openGates();
    case "sleep":
      tell({ kind: "sleeping" });
      return void setImmediate(() => process.kill(process.pid, "SIGSTOP"));
    case "report":
      return tell({ kind: "report", report: { ...longest, loopDelayMs: delay.max / 1e6 } });
    case "stop":
      return void stop();
  }
});
process.on("SIGTERM", () => void stop());
process.on("SIGINT", () => void stop());

startMeasuring();
tell({ kind: "ready" });
