/**
 * The function that applies the calls of a group, in one round trip. Its arguments are columns: each letter is a table of its own,
 * and `o_kind`, `o_ref` say in which order their rows are looked at.
 *
 * The rows of all runs that are touched are locked first, in the order of their ids, so that two groups never wait for each other
 * crosswise. They are then held in arrays (`c_...`, by slot), against which the guards of each operation are checked in order, and
 * written once at the end. A call whose guard fails is skipped alone.
 */
import { endingSql } from "./apply-ending-sql.ts";
import { createSql, messageSql, releaseSql } from "./apply-message-sql.ts";
import { applyParameters, lockTimeoutMs } from "./apply-parameters.ts";
import { checkSql, finishSql, writeSql } from "./apply-transition-sql.ts";
import { serverNow } from "./moment-sql.ts";

/** A function that is new for every change of its text, so that workers of two versions share a store. */
export const applySql = `
CREATE FUNCTION ~apply (${applyParameters.join(", ")},
  OUT results text[], OUT ready boolean, OUT holders text[])
LANGUAGE plpgsql
SET lock_timeout = '${lockTimeoutMs}ms'
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $apply$
#variable_conflict use_column
DECLARE
  moment constant bigint := coalesce(p_now, ${serverNow});
  slots constant int := coalesce(array_length(s_id, 1), 0);
  c_run bigint[] := array_fill(NULL::bigint, ARRAY[slots]);
  c_queue text[] := array_fill(NULL::text, ARRAY[slots]);
  c_epoch int[] := array_fill(NULL::int, ARRAY[slots]);
  c_status text[] := c_queue;
  c_seq int[] := c_epoch;
  c_wake bigint[] := c_run;
  c_worker text[] := c_queue;
  c_blocked text[] := c_queue;
  c_quarantined boolean[] := array_fill(false, ARRAY[slots]);
  c_tried text[] := c_queue;
  -- Where it is moved to.
  c_moving text[] := c_queue;
  artifacts text[] := '{}';
  -- The last transition of each, and the creation that made it.
  c_last int[] := c_epoch;
  c_new int[] := c_epoch;
  c_told boolean[] := c_quarantined;
  c_dirty boolean[] := c_quarantined;
  -- Whether something has changed that a step leaves as it is. While a run is held nobody looks at when it wakes.
  c_moved boolean[] := c_quarantined;
  -- Mail that counts towards the limit: counted once, however much is delivered.
  c_mail bigint[] := c_run;
  t_written boolean[] := array_fill(false, ARRAY[coalesce(array_length(t_slot, 1), 0)]);
  t_stands boolean[] := array_fill(false, ARRAY[coalesce(array_length(t_slot, 1), 0)]);
  r_run bigint[] := array_fill(NULL::bigint, ARRAY[coalesce(array_length(r_seq, 1), 0)]);
  broken text[] := '{}';
  freed text[] := '{}';
  failed_call int := 0;
  created int := 0;
  inserted int;
  newly_blocked int := 0;
  problem text;
  mail text;
  state text;
  held boolean;
  known record;
  found_row record;
  kind int;
  a int := 1;
  i int := 0;
  j int;
  k int;
  s int;
  rs int;
  dp int := 1;
  xp int := 1;
  wp int := 1;
  pp int := 1;
  ip int := 1;
BEGIN
  results := array_fill(''::text, ARRAY[coalesce(array_length(o_kind, 1), 0)]);
  ready := false;
  holders := '{}';

  FOR found_row IN
    SELECT run, run_id, queue, epoch, status, seq, wake_at, worker_id, blocked, quarantined, tried::text AS tried, moving_to
    FROM ~runs WHERE run_id = ANY (s_id) ORDER BY run_id FOR UPDATE
  LOOP
    i := i + 1;
    WHILE s_id[i] <> found_row.run_id LOOP i := i + 1; END LOOP;
    c_run[i] := found_row.run;
    c_queue[i] := found_row.queue;
    c_epoch[i] := found_row.epoch;
    c_status[i] := found_row.status;
    c_seq[i] := found_row.seq;
    c_wake[i] := found_row.wake_at;
    c_worker[i] := found_row.worker_id;
    c_blocked[i] := found_row.blocked;
    c_quarantined[i] := found_row.quarantined;
    c_tried[i] := found_row.tried;
    c_moving[i] := found_row.moving_to;
  END LOOP;

  -- Whoever asks for news of a worker's runs takes positions for settled up to the last: so positions are drawn one transaction
  -- after the other, for each holder.
  IF m_slot IS NOT NULL THEN
    FOR state IN
      SELECT DISTINCT h FROM (SELECT c_worker[x] AS h FROM unnest(m_slot) x UNION ALL SELECT unnest(k_worker)) z
      WHERE h IS NOT NULL ORDER BY h
    LOOP
      PERFORM pg_advisory_xact_lock(~lock_holders, ('x' || substr(md5(state), 1, 8))::bit(32)::int);
    END LOOP;
  END IF;

  IF a_id IS NOT NULL THEN
    -- What is referred to is not swept meanwhile.
    artifacts := ARRAY(SELECT id FROM ~artifacts WHERE id = ANY (a_id) ORDER BY id FOR UPDATE);
  END IF;

  WHILE a <= array_length(o_kind, 1) LOOP
    kind := o_kind[a];
    j := o_ref[a];

    IF o_call[a] = failed_call OR (o_owner[a] > 0 AND t_stands[o_owner[a]]) THEN
      -- Of a call that was refused, or of a transition that stands already.
      NULL;

    ELSIF kind IN (1, 2, 5, 9) THEN
      s := t_slot[j];

${checkSql}${writeSql}${finishSql}
${createSql}${messageSql}${releaseSql}    END IF;
    a := a + 1;
  END LOOP;

${endingSql}  -- What waits for a slot of a queue may have one.
  IF NOT ready AND array_length(freed, 1) > 0 THEN
    ready := EXISTS (SELECT FROM ~lanes l WHERE l.queue = ANY (freed) AND EXISTS (
      SELECT FROM ~runs WHERE lane = l.lane AND wake_at <= moment AND wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL));
  END IF;
END
$apply$`;
