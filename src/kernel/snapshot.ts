/** Bookmarks of runs, as a store keeps them. */
import type { RunStatus } from "./run.ts";

/** A bookmark of a run at one of its records: the state is the fold up to there, so that it costs a row. */
export interface SnapshotRow {
  snapshotId: string;
  runId: string;
  workflowId: string;
  version: string;
  seq: number;
  /** Hash of that record. */
  hash: string;
  node: string;
  status: RunStatus;
  name: string;
  description?: string;
  tags: string[];
  createdAt: number;
  updatedAt: number;
}

export interface SnapshotQuery {
  runId?: string;
  workflowId?: string;
  /** One of its tags, whatever the case. */
  tag?: string;
  /** Part of its name or description, whatever the case. */
  text?: string;
  limit?: number;
  cursor?: string;
}
