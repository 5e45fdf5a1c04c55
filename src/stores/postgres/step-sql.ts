/**
 * The function for a call that is alone and does nothing but go on: one transition of a run that stays with its holder, with records
 * and nothing else. It costs little more than the bare statements. When its guard does not hold, nothing is written, and `apply` says why.
 */
import type { Transition } from "../../kernel/transition.ts";
import { lockTimeoutMs } from "./apply-parameters.ts";
import type { Call } from "./calls.ts";
import { arrayOf, encode } from "./encode.ts";

export const stepSql = `
CREATE FUNCTION ~step (p_id text, p_worker text, p_epoch int, p_after int, p_version text, p_status text, p_paused boolean,
  p_node text, p_step bigint, p_seq int, p_head text, p_error text, p_updated bigint, r_seq int[], r_header text[], r_body text[])
RETURNS boolean LANGUAGE plpgsql SET enable_seqscan = off SET lock_timeout = '${lockTimeoutMs}ms'
AS $step$
DECLARE
  number bigint;
BEGIN
  UPDATE ~runs SET version = p_version, node = p_node, step = p_step, seq = p_seq, head = p_head, error = p_error,
    updated_at = p_updated, tried = NULL
  WHERE run_id = p_id AND seq = p_after AND worker_id = p_worker AND epoch = p_epoch AND status = p_status AND paused = p_paused
  RETURNING run INTO number;
  IF number IS NULL THEN RETURN false; END IF;
  INSERT INTO ~records SELECT number, u.* FROM unnest(r_seq, r_header, r_body) u;
  RETURN true;
END
$step$`;

/** Whether a call is such a step; then the statement that carries it out, which answers whether it did. */
export function stepOf(call: Call): { sql: string; values: unknown[] } | undefined {
  if (call.kind !== "commit" || call.problem !== undefined || call.transitions.length !== 1) return undefined;
  const [transition] = call.transitions as [Transition];
  if (!goesOn(transition)) return undefined;
  const { runId, lease, after, row, records } = transition;
  return {
    sql: "SELECT ~step($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) AS done",
    values: [
      encode(runId),
      encode(lease.workerId),
      lease.epoch,
      after,
      encode(row.version),
      row.status,
      row.paused,
      encode(row.node),
      row.step,
      row.seq,
      row.head,
      row.error ? JSON.stringify(row.error) : null,
      row.updatedAt,
      arrayOf(records.map(({ seq }) => seq)),
      arrayOf(records.map(({ header }) => header)),
      arrayOf(records.map(({ body }) => body)),
    ],
  };
}

function goesOn(transition: Transition): boolean {
  const { row, records, take, send, start, release, waits, checkpoint, counters, indexed, artifacts, dropBefore } = transition;
  return (
    row.status === "running" &&
    records.length > 0 &&
    take.length + send.length + start.length === 0 &&
    !(release || waits || checkpoint || counters?.length || indexed || artifacts?.length || dropBefore !== undefined)
  );
}
