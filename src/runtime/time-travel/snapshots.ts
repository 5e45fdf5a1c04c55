/** Snapshots: named bookmarks of runs. The state that one stands for is the fold of the run's ledger up to its record. */
import { checkTags } from "../../kernel/begin.ts";
import { AbstractRuntimeError, checkOptions, invalidOption } from "../../kernel/errors.ts";
import type { RunState } from "../../kernel/run.ts";
import { statusOf } from "../../kernel/run.ts";
import type { SnapshotQuery, SnapshotRow } from "../../kernel/snapshot.ts";
import type { Store } from "../../kernel/store.ts";
import { type Forking, type ForkOptions, forkRun } from "./fork.ts";
import { stateAt } from "./moments.ts";
import { checkWhole } from "../options.ts";
import { loadRun } from "../read.ts";
import { type Run, viewOf } from "../view.ts";

export type Snapshot = Readonly<SnapshotRow>;

export interface SnapshotOptions {
  /** 1 to 200 characters. */
  name: string;
  description?: string;
  /** Up to 64 short texts. */
  tags?: readonly string[];
  /** The record that it marks. Default: the run's last one. */
  seq?: number;
  /** A second snapshot with the same id replaces the first. Default: a UUID. */
  snapshotId?: string;
}

/** What snapshots need of their runtime. */
interface SnapshotHost {
  /** @throws RUNTIME_STOPPED */
  store(): Store;
  forking: Forking;
}

export class Snapshots {
  readonly #host: SnapshotHost;

  constructor(host: SnapshotHost) {
    this.#host = host;
  }

  /**
   * Marks a run at one of its records. Costs a row, however large the state is.
   *
   * @throws RUN_NOT_FOUND, SEQ_NOT_FOUND, RECORDS_ARCHIVED, RUN_PURGED, INVALID_OPTION
   */
  async create(runId: string, options: SnapshotOptions): Promise<Snapshot> {
    const store = this.#host.store();
    checkOptions(options, ["name", "description", "tags", "seq", "snapshotId"], "snapshots.create()");
    const { name, description, tags = [], seq, snapshotId = this.#host.forking.ids.id() } = options;
    checkText("name", name, 1, 200);
    checkText("snapshotId", snapshotId, 1, 200);
    if (description !== undefined) checkText("description", description, 0, 10_000);
    checkTags(tags);
    const state = await stateAt(store, runId, seq ?? (await loadRun(store, runId)).row.seq);
    const now = this.#host.forking.now();
    const snapshot: SnapshotRow = {
      snapshotId,
      runId,
      workflowId: state.workflowId,
      version: state.version,
      seq: state.seq,
      hash: state.head,
      node: state.node,
      status: statusOf(state),
      name,
      ...(description === undefined ? {} : { description }),
      tags: [...new Set(tags)],
      createdAt: (await store.snapshot(snapshotId))?.createdAt ?? now,
      updatedAt: now,
    };
    await store.saveSnapshot(snapshot);
    return snapshot;
  }

  /**
   * Newest first; a page says when there are more.
   *
   * @param query.tag One of its tags. @param query.text Part of its name or description. Both whatever the case; an empty text is no filter.
   */
  async list(query: SnapshotQuery = {}): Promise<{ snapshots: Snapshot[]; next?: string }> {
    const store = this.#host.store();
    checkOptions(query, ["runId", "workflowId", "tag", "text", "limit", "cursor"], "snapshots.list()");
    checkWhole("limit", query.limit);
    for (const option of ["runId", "workflowId", "tag", "text", "cursor"] as const) {
      const given: unknown = query[option];
      if (given === undefined || (typeof given === "string" && given.isWellFormed())) continue;
      throw invalidOption(option, `${option} is a well-formed text`);
    }
    return store.snapshots(query);
  }

  /**
   * A snapshot, with the run as it was there.
   *
   * @throws SNAPSHOT_NOT_FOUND, RUN_PURGED, RECORDS_ARCHIVED; RECORD_CORRUPT when the run's record is not the one that was marked.
   */
  async get(snapshotId: string): Promise<Snapshot & { run: Run }> {
    const snapshot = await this.#find(snapshotId);
    const state = await stateAt(this.#host.store(), snapshot.runId, snapshot.seq);
    checkHash(snapshot, state);
    return { ...snapshot, run: viewOf(state) };
  }

  /** Answers whether there was one. The run stays as it is. */
  async delete(snapshotId: string): Promise<boolean> {
    checkText("snapshotId", snapshotId, 0, Number.POSITIVE_INFINITY);
    return this.#host.store().deleteSnapshot(snapshotId);
  }

  /**
   * A new run that goes on from a snapshot: a fork at its record. The run that it marks stays as it is.
   *
   * @throws As `get` and `fork`; also WORKFLOW_INCOMPATIBLE when the code that is here could not go on from there.
   */
  async restore(snapshotId: string, options: Omit<ForkOptions, "atSeq"> = {}): Promise<{ runId: string }> {
    const { runId, seq, ...rest } = await this.#find(snapshotId);
    checkOptions(options, ["vars", "open", "runId", "tags", "actorId"], "snapshots.restore()");
    const check = (state: RunState): void => checkHash({ runId, seq, ...rest }, state);
    return forkRun(this.#host.forking, runId, { ...options, atSeq: seq }, { snapshotId, check });
  }

  async #find(snapshotId: string): Promise<SnapshotRow> {
    checkText("snapshotId", snapshotId, 0, Number.POSITIVE_INFINITY);
    const snapshot = await this.#host.store().snapshot(snapshotId);
    if (!snapshot) throw new AbstractRuntimeError("SNAPSHOT_NOT_FOUND", { snapshotId });
    return snapshot;
  }
}

function checkHash({ snapshotId, runId, seq, hash }: SnapshotRow, state: RunState): void {
  if (state.head === hash) return;
  const problem = `it is not the record that snapshot ${snapshotId} was made of`;
  throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq, problem });
}

/** NUL is a character that some databases do not keep. */
function checkText(option: string, text: unknown, least: number, most: number): void {
  const isText = typeof text === "string" && text.length >= least && text.length <= most;
  if (isText && text.isWellFormed() && !text.includes("\0")) return;
  const problem = `${option} is a well-formed text of ${least} to ${most} characters, without U+0000`;
  throw invalidOption(option, problem);
}
