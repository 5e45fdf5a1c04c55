/** The function that says when a worker should look again. */
import {
  claimer,
  free,
  heldOf,
  keysOf,
  known,
  liftable,
  mostPassed,
  opensAt,
  queueState,
  readLanes,
  settings,
} from "./lanes-sql.ts";
import { serverNow } from "./moment-sql.ts";

/** When \`claim\` would give this worker something: a run is due, a holder expires, or a block gives way to it. */
export const nextDueSql = `
CREATE FUNCTION ~next_due (${claimer}, OUT due bigint, OUT moment bigint, OUT block_count bigint)
LANGUAGE plpgsql STABLE ${settings}
AS $due$
#variable_conflict use_column
DECLARE
  ${queueState}
  one record;
  key text;
  first bigint;
  passed int;
  plain int[] := '{}';
BEGIN
  moment := coalesce(p_now, ${serverNow});
  SELECT count INTO block_count FROM ~blocks;
  ${readLanes}
  FOR i IN 1 .. coalesce(array_length(l_lane, 1), 0) LOOP
    ${opensAt}
    CONTINUE WHEN l_at[i] IS NULL;
    IF q IS NULL OR q_keyed[q] IS NULL THEN
      plain := plain || i;
      CONTINUE;
    END IF;
    first := NULL;
    passed := 0;
    FOR one IN SELECT queue_key, wake_at FROM ~runs WHERE lane = l_lane[i] AND ${free} ORDER BY wake_at, run LIMIT ${mostPassed} LOOP
      passed := passed + 1;
      IF one.queue_key IS NULL OR ${heldOf("one.queue_key")} < q_keyed[q] THEN
        first := one.wake_at;
        EXIT;
      END IF;
    END LOOP;
    IF first IS NULL AND passed = ${mostPassed} THEN
      FOR key IN ${keysOf("l_lane[i]")} LOOP
        IF key IS NULL THEN
          first := least(first, (SELECT min(wake_at) FROM ~runs WHERE lane = l_lane[i] AND queue_key IS NULL AND queue IS NOT NULL
            AND ${free}));
        ELSIF ${heldOf("key")} < q_keyed[q] THEN
          first := least(first, (SELECT min(wake_at) FROM ~runs WHERE lane = l_lane[i] AND queue_key = key AND queue IS NOT NULL
            AND ${free}));
        END IF;
      END LOOP;
    END IF;
    due := least(due, CASE WHEN l_at[i] > moment THEN CASE WHEN first IS NOT NULL THEN greatest(first, l_at[i]) END ELSE first END);
  END LOOP;
  due := least(due, (SELECT min(CASE WHEN l_at[p.i] > moment THEN greatest(d.wake_at, l_at[p.i]) ELSE d.wake_at END)
    FROM unnest(plain) p(i) CROSS JOIN LATERAL (
      SELECT wake_at FROM ~runs WHERE lane = l_lane[p.i] AND ${free} ORDER BY wake_at, run LIMIT 1) d));
  -- A run that a dead worker holds in a queue is of use for its slot, too.
  due := least(due, (SELECT min(greatest(moment, w.expires_at)) FROM ~workers w WHERE w.worker_id <> p_worker AND EXISTS (
    SELECT FROM ~runs WHERE worker_id = w.worker_id AND ((${known}) OR queue = ANY (q_name)))));
  IF block_count <> p_seen_blocks AND EXISTS (SELECT FROM ~runs WHERE ${liftable}) THEN due := least(due, moment); END IF;
END
$due$`;
