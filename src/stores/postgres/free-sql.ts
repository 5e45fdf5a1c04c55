/** The functions that end a worker, and that tell it of mail. */
import { settings } from "./lanes-sql.ts";
import { serverNow } from "./moment-sql.ts";

/**
 * Has a worker stand in the table, and stay there until this transaction is over: whoever takes it for dead meanwhile would not see what
 * it is about to hold, and nobody would find that when it dies. One that never renewed counts as expired.
 */
export const keepWorker = (worker: string): string => `
  LOOP
    PERFORM FROM ~workers WHERE worker_id = ${worker} FOR KEY SHARE;
    EXIT WHEN FOUND;
    INSERT INTO ~workers VALUES (${worker}, moment) ON CONFLICT DO NOTHING;
    EXIT WHEN FOUND;
  END LOOP;`;

/**
 * Ends a worker and frees what it holds, or only what was given to it by claims whose answers it never got. Mail may have come
 * while a run was held, so every freed run is looked at once. Rows that others have locked are waited for, or left for the next time.
 */
export const freeSql = `
CREATE FUNCTION ~free (p_now bigint, p_worker text, p_claims text[], p_wait boolean, OUT freed int, OUT moment bigint)
LANGUAGE plpgsql ${settings}
AS $free$
#variable_conflict use_column
DECLARE
  numbers bigint[];
BEGIN
  moment := coalesce(p_now, ${serverNow});
  IF p_wait THEN
    -- Behind its claims that are under way.
    PERFORM FROM ~workers WHERE worker_id = p_worker AND p_claims IS NULL FOR UPDATE;
    numbers := ARRAY(SELECT run FROM ~runs WHERE worker_id = p_worker AND (p_claims IS NULL OR claim = ANY (p_claims))
      ORDER BY run_id FOR UPDATE);
  ELSE
    numbers := ARRAY(SELECT run FROM ~runs WHERE worker_id = p_worker AND (p_claims IS NULL OR claim = ANY (p_claims))
      ORDER BY run_id FOR UPDATE SKIP LOCKED);
  END IF;
  freed := coalesce(array_length(numbers, 1), 0);
  UPDATE ~runs SET worker_id = NULL, rested_at = updated_at, wake_at = CASE
      WHEN status IN ('running', 'waiting') OR (status = 'failed' AND EXISTS
        (SELECT FROM ~mailbox m WHERE m.run = runs.run AND m.payload IS NOT NULL)) THEN least(wake_at, moment) END
    WHERE run = ANY (numbers);
  IF p_claims IS NULL AND (p_wait OR NOT EXISTS (SELECT FROM ~runs WHERE worker_id = p_worker)) THEN
    DELETE FROM ~workers WHERE worker_id = p_worker;
  END IF;
END
$free$`;

/** Messages to runs that a worker holds, see \`apply\` for the lock. */
export const newsSql = `
CREATE FUNCTION ~news (p_worker text, p_after bigint, OUT run_ids text[], OUT last bigint)
LANGUAGE plpgsql ${settings}
AS $news$
#variable_conflict use_column
BEGIN
  PERFORM pg_advisory_xact_lock_shared(~lock_holders, ('x' || substr(md5(p_worker), 1, 8))::bit(32)::int);
  last := coalesce((SELECT max(position) FROM ~mailbox), 0);
  run_ids := '{}';
  IF last <= p_after THEN RETURN; END IF;
  -- What came since is little when somebody looks often; what is held is little in any case.
  IF last - p_after <= 1000 THEN
    run_ids := ARRAY(SELECT DISTINCT r.run_id FROM ~mailbox m JOIN ~runs r ON r.run = m.run
      WHERE m.position > p_after AND m.payload IS NOT NULL AND r.worker_id = p_worker);
  ELSE
    run_ids := ARRAY(SELECT r.run_id FROM ~runs r WHERE r.worker_id = p_worker AND EXISTS (
      SELECT FROM ~mailbox m WHERE m.run = r.run AND m.position > p_after AND m.payload IS NOT NULL));
  END IF;
END
$news$`;
