/** The function that gives runs to a worker. */
import { keepWorker } from "./free-sql.ts";
import { claimer, free, heldOf, keysOf, liftable, mostPassed, opensAt, queueState, readLanes, settings } from "./lanes-sql.ts";
import { serverNow } from "./moment-sql.ts";

/**
 * Leases runs to a worker. Those that are due are found at the heads of its lanes, in order; rows that others have locked are
 * passed over. Claims of one queue with limits are made one after the other, since each counts what the others hold.
 */
export const claimSql = `
CREATE FUNCTION ~claim (${claimer}, p_limit int, p_run_id text, p_claim text, p_lost text[],
  OUT run_ids text[], OUT epochs int[], OUT ready boolean, OUT block_count bigint)
LANGUAGE plpgsql ${settings}
AS $claim$
#variable_conflict use_column
DECLARE
  moment constant bigint := coalesce(p_now, ${serverNow});
  ${queueState}
  one record;
  expired text;
  freed int;
  skipped bigint[] := '{}';
  taken int := 0;
  lost boolean;
  more boolean;
  most int;
  keyed boolean[];
  looked int[];
  plain int[];
  b_lane int[];
  b_run bigint[];
  b_key text[];
  b_wake bigint[];
  key text;
  slots bigint;
  priority bigint;
  new_epoch int;
BEGIN
  run_ids := '{}';
  epochs := '{}';
  ready := false;
  SELECT count INTO block_count FROM ~blocks;
  -- Where its connection was lost, this claim may be made twice, in either order: one waits for the other, and both give the same.
  PERFORM pg_advisory_xact_lock(~lock_claims, ('x' || substr(md5(p_claim), 1, 8))::bit(32)::int);
  IF p_lost IS NOT NULL THEN
    freed := (SELECT f.freed FROM ~free(moment, p_worker, p_lost, true) f);
  END IF;
  SELECT coalesce(array_agg(run_id), '{}'), coalesce(array_agg(epoch), '{}') INTO run_ids, epochs
  FROM ~runs WHERE worker_id = p_worker AND claim = p_claim;
  IF array_length(run_ids, 1) > 0 THEN RETURN; END IF;

  FOR expired IN SELECT worker_id FROM ~workers WHERE expires_at <= moment AND worker_id <> p_worker ORDER BY worker_id
    FOR UPDATE SKIP LOCKED
  LOOP
    freed := (SELECT f.freed FROM ~free(moment, expired, NULL, false) f);
    IF freed > 0 THEN ready := true; END IF;
  END LOOP;
  ${keepWorker("p_worker")}

  IF block_count <> p_seen_blocks THEN
    -- Blocked runs get another chance with other code.
    FOR one IN SELECT run FROM ~runs WHERE ${liftable} ORDER BY run_id FOR UPDATE LOOP
      UPDATE ~runs SET blocked = NULL, wake_at = least(wake_at, moment) WHERE run = one.run;
      ready := true;
    END LOOP;
  END IF;

  FOR expired IN SELECT q_name[x] FROM generate_subscripts(q_name, 1) x
    WHERE coalesce(q_held[x], q_keyed[x], q_rate[x]) IS NOT NULL ORDER BY q_name[x]
  LOOP
    PERFORM pg_advisory_xact_lock(~lock_queues, ('x' || substr(md5(expired), 1, 8))::bit(32)::int);
  END LOOP;

  IF p_run_id IS NOT NULL THEN
    SELECT run, run_id, lane, queue, queue_key, status, wake_at, epoch, blocked, quarantined, tried INTO one
    FROM ~runs WHERE run_id = p_run_id AND worker_id IS NULL AND moving_token IS NULL FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR one.status IN ('completed', 'cancelled') OR (one.status = 'failed' AND one.wake_at IS NULL)
      OR (one.queue IS NOT NULL AND array_position(q_name, one.queue) IS NULL)
      OR (one.blocked IS NOT NULL AND (one.quarantined OR p_fingerprint = ANY (coalesce(one.tried, '{}'))))
    THEN RETURN; END IF;
    i := 1;
    l_queue := ARRAY[array_position(q_name, one.queue)];
    l_begun := ARRAY[one.epoch > 0];
    ${opensAt}
    IF l_at[1] IS DISTINCT FROM moment THEN RETURN; END IF;
    IF q IS NOT NULL AND one.queue_key IS NOT NULL AND ${heldOf("one.queue_key")} >= q_keyed[q] THEN RETURN; END IF;
    IF q IS NOT NULL AND one.epoch = 0 THEN
      one.lane := (SELECT n.lane FROM ~lanes l JOIN ~lanes n ON n.workflow_id = l.workflow_id AND n.queue = l.queue
        AND n.priority = l.priority AND n.begun WHERE l.lane = one.lane);
      IF q_rate[q] IS NOT NULL THEN
        DELETE FROM ~begins WHERE queue = q_name[q] AND at <= moment - q_period[q];
        INSERT INTO ~begins VALUES (q_name[q], moment, one.run);
      END IF;
    END IF;
    UPDATE ~runs SET worker_id = p_worker, rested_at = NULL, epoch = epoch + 1, claim = p_claim, lane = one.lane, blocked = NULL WHERE run = one.run;
    run_ids := ARRAY[one.run_id];
    epochs := ARRAY[one.epoch + 1];
    RETURN;
  END IF;

  ${readLanes}
  keyed := array_fill(false, ARRAY[coalesce(array_length(l_lane, 1), 0)]);

  FOR priority IN SELECT DISTINCT x FROM unnest(l_priority) x ORDER BY x DESC LOOP
    LOOP
      EXIT WHEN taken >= p_limit;
      -- The heads of the lanes that are open, and of those that were passed over, what their keys have slots for.
      plain := '{}';
      b_lane := '{}';
      b_run := '{}';
      b_key := '{}';
      b_wake := '{}';
      looked := array_fill(0, ARRAY[array_length(l_lane, 1)]);
      most := p_limit - taken + coalesce(array_length(skipped, 1), 0);
      FOR i IN 1 .. array_length(l_lane, 1) LOOP
        CONTINUE WHEN l_priority[i] <> priority;
        ${opensAt}
        CONTINUE WHEN l_at[i] IS DISTINCT FROM moment;
        IF NOT keyed[i] THEN
          plain := plain || i;
          IF q IS NOT NULL AND q_keyed[q] IS NOT NULL THEN most := p_limit + coalesce(array_length(skipped, 1), 0) + ${mostPassed}; END IF;
          CONTINUE;
        END IF;
        FOR key IN ${keysOf("l_lane[i]")} LOOP
          slots := p_limit - taken;
          IF key IS NOT NULL THEN
            slots := least(slots, q_keyed[q] - ${heldOf("key")} );
          END IF;
          CONTINUE WHEN slots < 1;
          slots := slots + coalesce(array_length(skipped, 1), 0);
          FOR one IN
            SELECT run, wake_at FROM ~runs WHERE lane = l_lane[i] AND queue_key = key AND wake_at <= moment AND queue IS NOT NULL
              AND ${free} AND key IS NOT NULL ORDER BY wake_at, run LIMIT slots
          LOOP
            b_lane := b_lane || i; b_run := b_run || one.run; b_key := b_key || key; b_wake := b_wake || one.wake_at;
          END LOOP;
          FOR one IN
            SELECT run, wake_at FROM ~runs WHERE lane = l_lane[i] AND queue_key IS NULL AND wake_at <= moment AND queue IS NOT NULL
              AND ${free} AND key IS NULL ORDER BY wake_at, run LIMIT slots
          LOOP
            b_lane := b_lane || i; b_run := b_run || one.run; b_key := b_key || key; b_wake := b_wake || one.wake_at;
          END LOOP;
        END LOOP;
      END LOOP;

      lost := false;
      more := false;
      FOR one IN
        SELECT * FROM (
          SELECT p.i AS place, d.run, d.queue_key, d.wake_at
          FROM unnest(plain) p(i) CROSS JOIN LATERAL (
            SELECT run, queue_key, wake_at FROM ~runs WHERE lane = l_lane[p.i] AND wake_at <= moment AND ${free}
            ORDER BY wake_at, run LIMIT most) d
          UNION ALL SELECT * FROM unnest(b_lane, b_run, b_key, b_wake)) z
        ORDER BY wake_at, run
      LOOP
        i := one.place;
        looked[i] := looked[i] + 1;
        q := l_queue[i];
        IF NOT one.run = ANY (skipped)
          AND (q IS NULL OR q_held[q] IS NULL OR q_used[q] < q_held[q])
          AND (q IS NULL OR q_rate[q] IS NULL OR l_begun[i] OR q_begun[q] < q_rate[q])
          AND (q IS NULL OR q_keyed[q] IS NULL OR one.queue_key IS NULL OR ${heldOf("one.queue_key")} < q_keyed[q])
        THEN
          skipped := skipped || one.run;
          PERFORM FROM ~runs WHERE run = one.run AND wake_at <= moment AND ${free} FOR UPDATE SKIP LOCKED;
          IF NOT FOUND THEN
            lost := true;
          ELSE
            UPDATE ~runs SET worker_id = p_worker, rested_at = NULL, epoch = epoch + 1, claim = p_claim, lane = coalesce(l_next[i], lane)
            WHERE run = one.run RETURNING run_id, epoch INTO expired, new_epoch;
            run_ids := run_ids || expired;
            epochs := epochs || new_epoch;
            taken := taken + 1;
            IF q IS NOT NULL THEN
              q_used[q] := q_used[q] + 1;
              q_begun[q] := q_begun[q] + CASE WHEN l_begun[i] THEN 0 ELSE 1 END;
              IF q_rate[q] IS NOT NULL AND NOT l_begun[i] THEN
                DELETE FROM ~begins WHERE queue = q_name[q] AND at <= moment - q_period[q];
                INSERT INTO ~begins VALUES (q_name[q], moment, one.run);
              END IF;
            END IF;
            EXIT WHEN taken >= p_limit;
          END IF;
        END IF;
        -- The last that was read of a lane: what stands behind it may come before what was read of the others.
        IF looked[i] >= most AND NOT keyed[i] THEN
          IF q IS NOT NULL AND q_keyed[q] IS NOT NULL THEN keyed[i] := true; END IF;
          more := true;
          EXIT;
        END IF;
      END LOOP;
      EXIT WHEN NOT lost AND NOT more;
    END LOOP;
  END LOOP;
END
$claim$`;
