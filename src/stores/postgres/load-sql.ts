/** The function that loads runs: what a driver starts from, of several runs in one round trip, as it stood at one moment. */
import { serverNow } from "./moment-sql.ts";
export const loadSql = `
CREATE FUNCTION ~load (p_now bigint, p_ids text[], p_at int, p_whole boolean, p_known text[])
RETURNS TABLE (what text, of_run text, seq int, a text, b text)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $load$
#variable_conflict use_column
DECLARE
  one record;
  first int;
  last int;
  number int;
  state text;
BEGIN
  FOR one IN SELECT r.* FROM ~runs r WHERE r.run_id = ANY (p_ids) LOOP
    what := 'run'; of_run := one.run_id; seq := one.seq; a := row_to_json(one)::text;
    b := coalesce(p_now, ${serverNow})::text;
    RETURN NEXT;
    IF one.head <> ALL (p_known) THEN
      first := coalesce(one.archived_before, 0);
      last := least(p_at, one.seq);
      IF NOT p_whole THEN
        SELECT c.seq, c.ordinal, c.state INTO first, number, state FROM ~checkpoints c
        WHERE c.run = one.run AND c.seq <= last ORDER BY c.seq DESC LIMIT 1;
        IF FOUND THEN
          what := 'checkpoint'; seq := first; a := state; b := number::text;
          RETURN NEXT;
          first := first + 1;
        ELSE
          first := coalesce(one.archived_before, 0);
        END IF;
      END IF;
      RETURN QUERY SELECT 'record', one.run_id, d.seq, d.header, d.body FROM ~records d
        WHERE d.run = one.run AND d.seq BETWEEN first AND last ORDER BY d.seq;
    END IF;
    RETURN QUERY SELECT 'mail', one.run_id, NULL::int,
      json_build_array(m.position, m.id, m.kind, m.key, m.payload, m.at, m.actor_id)::text, NULL::text
      FROM ~mailbox m WHERE m.run = one.run AND m.payload IS NOT NULL ORDER BY m.position;
  END LOOP;
END
$load$`;
