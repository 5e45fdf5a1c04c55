/** The end of `apply`: what was changed in arrays is written. */
import { keepWorker } from "./free-sql.ts";

/** Runs, records, counters, blocks. */
export const endingSql = `
  IF created > 0 THEN
    FOR state IN SELECT DISTINCT w FROM unnest(k_worker) w WHERE w IS NOT NULL ORDER BY w LOOP
      ${keepWorker("state")}
    END LOOP;
    INSERT INTO ~runs (run, run_id, workflow_id, version, status, paused, node, step, seq, head, wake_at, lane, queue, queue_key,
      priority, worker_id, epoch, error, parent_run_id, tags, actor_id, session_id, created_at, updated_at, rested_at)
    SELECT c_run[n.slot], s_id[n.slot], n.workflow_id, n.version, n.status, n.paused, n.node, n.step, n.seq, n.head,
      CASE WHEN k_due[n.n] THEN moment ELSE k_wake[n.n] END, n.lane, n.queue, n.queue_key, n.priority, k_worker[n.n],
      CASE WHEN k_worker[n.n] IS NULL THEN 0 ELSE 1 END, n.error, n.parent_run_id, n.tags, n.actor_id, n.session_id, n.created_at, n.updated_at,
      CASE WHEN k_worker[n.n] IS NULL THEN n.updated_at END
    FROM json_to_recordset(k_rows::json) AS n (n int, slot int, workflow_id text, version text, status text, paused boolean,
      node text, step bigint, seq int, head text, lane bigint, queue text, queue_key text, priority bigint, error text,
      parent_run_id text, tags text, actor_id text, session_id text, created_at bigint, updated_at bigint)
    WHERE c_new[n.slot] = n.n ORDER BY n.slot
    ON CONFLICT (run_id) DO NOTHING;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    IF inserted <> created THEN
      -- Somebody has made one of them since the rows were read. The next attempt sees it.
      RAISE EXCEPTION 'a run was created by another transaction at this moment' USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO ~records SELECT c_run[u.slot], u.seq, u.header, u.body
      FROM unnest(k_slot, k_seq, k_header, k_body) WITH ORDINALITY u(slot, seq, header, body, n) WHERE c_new[u.slot] = u.n;
    IF g_tag IS NOT NULL THEN
      INSERT INTO ~run_tags SELECT c_run[k_slot[-u.owner]], u.tag FROM unnest(g_owner, g_tag) u(owner, tag)
        WHERE c_new[k_slot[-u.owner]] = -u.owner ON CONFLICT DO NOTHING;
    END IF;
    IF i_path IS NOT NULL THEN
      INSERT INTO ~run_vars SELECT c_run[k_slot[-u.owner]], u.path, u.value FROM unnest(i_owner, i_path, i_value) u(owner, path, value)
        WHERE u.owner < 0 AND c_new[k_slot[-u.owner]] = -u.owner ON CONFLICT DO NOTHING;
    END IF;
    IF a_id IS NOT NULL THEN
      INSERT INTO ~artifact_runs SELECT c_run[k_slot[-u.owner]], u.id FROM unnest(a_owner, a_id) u(owner, id)
        WHERE u.owner < 0 AND c_new[k_slot[-u.owner]] = -u.owner ORDER BY u.id ON CONFLICT DO NOTHING;
    END IF;
  END IF;

  IF r_seq IS NOT NULL THEN
    INSERT INTO ~records SELECT u.run, u.seq, u.header, u.body
      FROM unnest(r_run, r_seq, r_header, r_body) u(run, seq, header, body) WHERE u.run IS NOT NULL;
  END IF;

  -- All at once: what a statement costs to begin with is more than what a row costs.
  UPDATE ~runs r SET version = t_version[u.last], status = t_status[u.last], paused = t_paused[u.last], node = t_node[u.last],
    step = t_step[u.last], seq = t_seq[u.last], head = t_head[u.last], error = t_error[u.last], updated_at = t_updated[u.last],
    wake_at = CASE WHEN u.moved OR r.paused <> t_paused[u.last] THEN u.wake ELSE r.wake_at END, worker_id = u.worker,
    rested_at = CASE WHEN u.worker IS NULL THEN t_updated[u.last] END, blocked = u.blocked, quarantined = u.quarantined,
    tried = u.tried::text[]
  FROM unnest(c_run, c_last, c_dirty, c_moved, c_wake, c_worker, c_blocked, c_quarantined, c_tried)
    u(run, last, dirty, moved, wake, worker, blocked, quarantined, tried)
  WHERE r.run = u.run AND u.dirty AND u.last IS NOT NULL;
  IF m_slot IS NOT NULL OR l_slot IS NOT NULL THEN
    UPDATE ~runs r SET wake_at = u.wake, worker_id = u.worker, rested_at = CASE WHEN u.worker IS NULL THEN r.updated_at END,
      blocked = u.blocked, quarantined = u.quarantined, tried = u.tried::text[]
    FROM unnest(c_run, c_last, c_dirty, c_wake, c_worker, c_blocked, c_quarantined, c_tried)
      u(run, last, dirty, wake, worker, blocked, quarantined, tried)
    WHERE r.run = u.run AND u.dirty AND u.last IS NULL;
  END IF;

  IF n_owner IS NOT NULL THEN
    -- In order, and behind all other locks, so that nobody waits crosswise.
    INSERT INTO ~counters SELECT r.run, u.name, sum(u.change)
      FROM unnest(n_owner, n_run, n_name, n_add) u(owner, run_id, name, change) JOIN ~runs r ON r.run_id = u.run_id
      WHERE t_written[u.owner] GROUP BY r.run, u.name ORDER BY r.run, u.name
      ON CONFLICT (run, name) DO UPDATE SET value = counters.value + excluded.value;
  END IF;
  IF newly_blocked > 0 THEN UPDATE ~blocks SET count = count + newly_blocked; END IF;
`;
