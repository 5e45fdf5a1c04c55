/** The calls of a group as the columns that `apply` takes, and its answers as those of the calls. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import { beginsAt, type NewRun, type Transition } from "../../kernel/transition.ts";
import { checkpointsToDrop } from "../../kernel/checkpoint.ts";
import { countsTowardsLimit, type Message, messageDigest } from "../../kernel/message.ts";
import type { Scalar } from "../../kernel/query.ts";
import type { OpenWait } from "../../kernel/run.ts";
import type { Applied } from "../group.ts";
import { applyParameters, kinds } from "./apply-parameters.ts";
import { deliveryOf, unseen } from "./answers.ts";
import { type Call, laneOf, lastSeq, runsOf } from "./calls.ts";
import { arrayOf, byBytes, jsonOf, type Value } from "./encode.ts";
import type { Lanes } from "./lanes.ts";

/** The letters of `applyParameters`, with the columns of each. */
const tables = new Map<string, string[]>();
for (const parameter of applyParameters) {
  const [, table, column] = /^(\w)_(\w+) \S.*\[\]$/.exec(parameter) ?? [];
  if (table && column) tables.set(table, [...(tables.get(table) ?? []), column]);
}

export class Batch {
  readonly #slots = new Map<string, number>();
  readonly #lanes: Lanes;
  /** By table and column. */
  readonly #columns = new Map<string, Value[][]>();
  readonly #newRows: Record<string, unknown>[] = [];
  readonly #answers: ((results: readonly string[]) => Applied)[] = [];
  #ops = 0;
  readonly #runIds: readonly string[];

  constructor(calls: readonly Call[], lanes: Lanes) {
    this.#lanes = lanes;
    this.#runIds = byBytes(new Set(calls.flatMap(runsOf)));
    for (const runId of this.#runIds) this.#slots.set(runId, this.#slots.size + 1);
    for (const [i, call] of calls.entries()) this.#answers.push(this.#add(call, i + 1));
  }

  /** @param again Whether the calls may have been applied already, and only the answer was lost. */
  values(now: number | undefined, again: boolean): unknown[] {
    const single: Record<string, unknown> = {
      p_now: now,
      p_again: again,
      s_id: arrayOf(this.#runIds),
      k_rows: this.#newRows.length > 0 ? jsonOf(this.#newRows) : null,
    };
    return applyParameters.map((parameter) => {
      const [name = ""] = parameter.split(" ");
      if (name in single) return single[name];
      const [table = "", ...column] = name.split("_");
      const columns = this.#columns.get(table);
      return columns ? arrayOf(columns[tables.get(table)?.indexOf(column.join("_")) ?? -1] ?? []) : null;
    });
  }

  answers(results: readonly string[]): Applied[] {
    return this.#answers.map((answer) => {
      try {
        return answer(results);
      } catch (error) {
        return { error };
      }
    });
  }

  /** Adds a row; answers its number, from 1. */
  #row(table: string, ...values: Value[]): number {
    let columns = this.#columns.get(table);
    if (!columns) {
      columns = values.map(() => []);
      this.#columns.set(table, columns);
    }
    for (let i = 0; i < values.length; i++) columns[i]?.push(values[i]);
    return columns[0]?.length ?? 0;
  }

  #op(kind: keyof typeof kinds, ref: number, call: number, owner = 0): number {
    this.#row("o", kinds[kind], ref, call, owner);
    return this.#ops++;
  }

  #slot(runId: string): number {
    return this.#slots.get(runId) as number;
  }

  #add(call: Call, number: number): (results: readonly string[]) => Applied {
    switch (call.kind) {
      case "create": {
        const check = call.runs.some(({ artifacts }) => artifacts?.length) ? this.#op("references", 0, number) : undefined;
        const ops = call.runs.map((run) => this.#create(run, number, 0, call.workerId));
        return (results) => {
          const missing = check === undefined ? undefined : this.#missing(results[check]);
          return missing ? { error: missing } : { value: ops.map((op) => results[op] === "t") };
        };
      }
      case "deliver": {
        const ops = call.messages.map((message) => this.#message(message, number, 0, call.limit));
        return (results) => ({ value: ops.map((op) => deliveryOf(results[op] as string, call.limit)) });
      }
      case "release": {
        const { runId, lease, blocked, mailSeen } = call;
        const block = blocked ? [JSON.stringify(blocked), blocked.fingerprint, blocked.quarantine] : [null, null, false];
        const row = this.#row("l", this.#slot(runId), lease.workerId, lease.epoch, ...block, mailSeen);
        this.#op("release", row, number);
        return () => ({ value: undefined });
      }
      case "lift": {
        const row = this.#row("l", this.#slot(call.runId), null, null, null, null, false, null);
        const op = this.#op("lift", row, number);
        return (results) => ({ value: results[op] === "t" });
      }
      case "commit":
        return this.#commit(call, number);
    }
  }

  #commit({ transitions, problem }: Call & { kind: "commit" }, call: number): (results: readonly string[]) => Applied {
    const runIds = new Set<string>();
    const rows = transitions.map((transition) => {
      const { runId, after, records } = transition;
      // The second would be checked against a state that the first is about to change.
      const twice = runIds.has(runId) ? "one commit names it twice" : undefined;
      runIds.add(runId);
      const long = after + records.length > lastSeq ? tooLong : undefined;
      return this.#transition(transition, call, problem ?? twice ?? long);
    });
    const [first] = transitions;
    const checks: number[] = [];
    let finishes: number[];
    if (transitions.length === 1 && first?.start.length === 0 && first.send.length === 0) {
      checks.push(this.#op("whole", rows[0] as number, call));
      finishes = checks;
    } else {
      for (const row of rows) checks.push(this.#op("check", row, call));
      finishes = transitions.map(({ start, send }, i) => {
        const owner = rows[i] as number;
        this.#op("write", owner, call);
        for (const child of start) this.#create(child, call, owner);
        for (const message of send) this.#message(message, call, owner);
        return this.#op("finish", owner, call);
      });
    }
    return (results) => {
      for (const [i, check] of checks.entries()) {
        const said = results[check] as string;
        const missing = this.#missing(said);
        if (missing) return { error: missing };
        if (!said.startsWith("c")) continue;
        const { runId } = transitions[i] as Transition;
        if (said === `c${tooLong}`) return { error: new AbstractRuntimeError("RUN_TOO_LONG", { runId, limit: lastSeq }) };
        return { error: new AbstractRuntimeError("CONFLICT", { runId, problem: said.slice(1) }) };
      }
      return { value: finishes.map((op, i) => unseen(results[op] as string, transitions[i] as Transition)) };
    };
  }

  #missing(result = ""): AbstractRuntimeError<"ARTIFACT_MISSING"> | undefined {
    const [, slot, artifactId] = /^a(\d+) (.*)$/s.exec(result) ?? [];
    if (artifactId === undefined) return undefined;
    return new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId, runId: this.#runIds[Number(slot) - 1] });
  }

  #transition(transition: Transition, call: number, problem: string | undefined): number {
    const { runId, lease, after, records, row, checkpoint, take, send, start, release, mailSeen, counters } = transition;
    const bare = release && records.length + take.length + send.length + start.length + (counters?.length ?? 0) === 0;
    const from = this.#records(records);
    const number = this.#row(
      "t",
      this.#slot(runId),
      lease.workerId,
      lease.epoch,
      after,
      problem,
      from,
      records.length,
      row.version,
      row.status,
      row.paused,
      row.node,
      row.step,
      row.seq,
      row.head,
      row.wakeAt,
      row.error ? JSON.stringify(row.error) : null,
      row.updatedAt,
      release,
      mailSeen,
      bare,
      transition.dropBefore,
    );
    for (const id of take) this.#row("d", number, id);
    for (const effectId of transition.waits?.close ?? []) this.#row("x", number, effectId);
    this.#waits(number, transition.waits?.open);
    this.#indexed(number, transition.indexed);
    for (const id of transition.artifacts ?? []) this.#row("a", call, number, number, id);
    if (checkpoint) {
      const drop = checkpointsToDrop(checkpoint.ordinal).join(",");
      this.#row("p", number, checkpoint.seq, checkpoint.ordinal, checkpoint.text, drop);
    }
    for (const counter of counters ?? []) this.#row("n", number, counter.runId, counter.name, counter.add);
    return number;
  }

  #waits(owner: number, waits: readonly OpenWait[] = []): void {
    for (const { effectId, waitKey, reason, since, until } of waits)
      this.#row("w", owner, effectId, waitKey, reason, since, until);
  }

  #indexed(owner: number, changes: Readonly<Record<string, Scalar | null>> = {}): void {
    // Its JSON: so 1, "1" and true are three values.
    for (const [path, value] of Object.entries(changes))
      this.#row("i", owner, path, value === null ? null : JSON.stringify(value));
  }

  /** The number of the first. */
  #records(records: readonly StoredRecord[]): number {
    let first = 0;
    for (const { seq, header, body } of records) {
      const row = this.#row("r", seq, header, body);
      if (first === 0) first = row;
    }
    return first;
  }

  #create(run: NewRun, call: number, owner: number, workerId?: string): number {
    const { row, record, notBefore } = run;
    const slot = this.#slot(row.runId);
    const { status, seq } = row;
    const { header, body } = record;
    // A clock of our own would not say when that is.
    const isDue = notBefore === undefined && status === "running" && row.wakeAt !== null;
    const n = this.#row("k", slot, workerId, beginsAt(run, 0), isDue, row.queue, status, seq, header, body);
    this.#waits(-n, run.waits);
    this.#indexed(-n, run.indexed);
    for (const tag of row.tags ?? []) this.#row("g", -n, tag);
    for (const id of run.artifacts ?? []) this.#row("a", call, owner, -n, id);
    this.#newRows.push({
      n,
      slot,
      workflow_id: row.workflowId,
      version: row.version,
      status,
      paused: row.paused,
      node: row.node,
      step: row.step,
      seq,
      head: row.head,
      lane: this.#lanes.of(laneOf(row, workerId !== undefined)),
      queue: row.queue,
      queue_key: row.queueKey,
      priority: row.priority,
      error: row.error && JSON.stringify(row.error),
      tags: row.tags && JSON.stringify(row.tags),
      parent_run_id: row.parentRunId,
      actor_id: row.actorId,
      session_id: row.sessionId,
      created_at: row.createdAt,
      updated_at: row.updatedAt,
    });
    return this.#op("create", n, call, owner);
  }

  #message(message: Message, call: number, owner: number, limit?: number): number {
    const { runId, id, kind, key, payload, ifWaiting, ifFailed, recall } = message;
    const row = this.#row(
      "m",
      this.#slot(runId),
      id,
      kind,
      key,
      JSON.stringify(payload),
      messageDigest(message),
      countsTowardsLimit(kind),
      limit,
      typeof ifWaiting === "string" ? ifWaiting : null,
      ifWaiting === true,
      ifFailed === true,
      recall && this.#slot(recall.runId),
      recall?.id,
      message.actorId,
    );
    return this.#op("message", row, call, owner);
  }
}

const tooLong = "too long";
