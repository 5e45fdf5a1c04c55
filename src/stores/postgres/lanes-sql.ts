/** What claims and the question for the next moment have in common: which runs are free, and what queues leave room for. */

export const settings = `SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan SET lock_timeout = '1s'`;

/** Those that are free and may be driven; the text that the partial indexes have. */
export const free = "wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL";

/** Runs whose workflow and queue a worker knows. */
export const known = "(p_workflows IS NULL OR workflow_id = ANY (p_workflows)) AND (queue IS NULL OR queue = ANY (q_name))";

/** Those of which the block gives way to a fingerprint. */
export const liftable = `blocked IS NOT NULL AND moving_token IS NULL AND NOT quarantined AND NOT p_fingerprint = ANY (coalesce(tried, '{}')) AND ${known}`;

export const claimer = `p_now bigint, p_worker text, p_fingerprint text, p_workflows text[], p_seen_blocks bigint,
  q_name text[], q_held int[], q_keyed int[], q_rate int[], q_period bigint[]`;

/** Counts of what the limits of a queue leave free. Written into both functions, since one cannot change the other's variables. */
export const queueState = `
  q_used int[] := array_fill(NULL::int, ARRAY[coalesce(array_length(q_name, 1), 0)]);
  q_begun int[] := q_used;
  l_lane bigint[];
  l_next bigint[];
  l_queue int[];
  l_priority bigint[];
  l_begun boolean[];
  l_at bigint[];
  q int;
  i int;`;

export const readLanes = `
  SELECT array_agg(l.lane), array_agg(n.lane), array_agg(array_position(q_name, l.queue)), array_agg(l.priority), array_agg(l.begun),
    array_agg(NULL::bigint)
  INTO l_lane, l_next, l_queue, l_priority, l_begun, l_at
  FROM ~lanes l LEFT JOIN ~lanes n
    ON n.workflow_id = l.workflow_id AND n.queue = l.queue AND n.priority = l.priority AND n.begun AND NOT l.begun
  WHERE (p_workflows IS NULL OR l.workflow_id = ANY (p_workflows)) AND (l.queue IS NULL OR l.queue = ANY (q_name));`;

/** When the queue of lane \`i\` takes one more, into \`l_at[i]\`: now, when its rate allows it, or never while it has no slot. */
export const opensAt = `
      q := l_queue[i];
      l_at[i] := moment;
      IF q IS NOT NULL AND q_held[q] IS NOT NULL THEN
        IF q_used[q] IS NULL THEN
          q_used[q] := (SELECT count(*) FROM ~runs WHERE queue = q_name[q] AND queue IS NOT NULL AND worker_id IS NOT NULL);
        END IF;
        IF q_used[q] >= q_held[q] THEN l_at[i] := NULL; END IF;
      END IF;
      IF q IS NOT NULL AND l_at[i] IS NOT NULL AND q_rate[q] IS NOT NULL AND NOT l_begun[i] THEN
        IF q_begun[q] IS NULL THEN
          q_begun[q] := (SELECT count(*) FROM ~begins WHERE queue = q_name[q] AND at > moment - q_period[q]);
        END IF;
        IF q_rate[q] < 1 THEN
          l_at[i] := NULL;
        ELSIF q_begun[q] >= q_rate[q] THEN
          l_at[i] := greatest(moment + 1, q_period[q] + coalesce(
            (SELECT at FROM ~begins WHERE queue = q_name[q] ORDER BY at DESC, run DESC LIMIT 1 OFFSET q_rate[q] - 1), moment));
        END IF;
      END IF;`;

/** The keys of runs that are free in a lane, each found behind the one before it; last the row of no key. */
export const keysOf = (lane: string): string => `
  WITH RECURSIVE keys (key) AS (
    (SELECT min(queue_key) FROM ~runs WHERE lane = ${lane} AND queue IS NOT NULL AND ${free})
    UNION ALL
    SELECT (SELECT min(queue_key) FROM ~runs WHERE lane = ${lane} AND queue_key > keys.key AND queue IS NOT NULL AND ${free})
    FROM keys WHERE keys.key IS NOT NULL)
  SELECT key FROM keys`;

export const heldOf = (key: string): string =>
  `(SELECT count(*) FROM ~runs WHERE queue = q_name[q] AND queue_key = ${key} AND queue IS NOT NULL AND worker_id IS NOT NULL)`;

/** So many runs whose keys have no slot are passed over one by one; then it is cheaper to ask each key. */
export const mostPassed = 256;
