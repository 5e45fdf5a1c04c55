/** Parts of `apply` about what comes to a run from outside: its creation, messages, a release without a commit, a lifted block. */

/** Creation, after a look at the artifacts that the runs of a call refer to. */
export const createSql = `
    ELSIF kind = 8 THEN
      FOR k IN 1 .. array_length(a_id, 1) LOOP
        rs := k_slot[-a_owner[k]];
        IF a_call[k] = o_call[a] AND NOT a_id[k] = ANY (artifacts) AND c_run[rs] IS NULL
          AND NOT EXISTS (SELECT FROM ~tombstones WHERE run_id = s_id[rs])
        THEN
          failed_call := o_call[a];
          results[a] := 'a' || rs || ' ' || a_id[k];
          EXIT;
        END IF;
      END LOOP;

    ELSIF kind = 3 THEN
      s := k_slot[j];
      -- What was purged leaves its id taken.
      IF c_run[s] IS NOT NULL OR EXISTS (SELECT FROM ~tombstones WHERE run_id = s_id[s]) THEN
        results[a] := 'f';
        IF p_again AND c_new[s] IS NULL AND NOT c_told[s] THEN
          PERFORM FROM ~records WHERE run = c_run[s] AND seq = k_seq[j] AND header = k_header[j];
          IF FOUND THEN
            results[a] := 't';
            c_told[s] := true;
          END IF;
        END IF;
      ELSE
        results[a] := 't';
        created := created + 1;
        c_run[s] := nextval('~run_numbers');
        c_new[s] := j;
        c_queue[s] := k_queue[j];
        c_epoch[s] := CASE WHEN k_worker[j] IS NULL THEN 0 ELSE 1 END;
        c_status[s] := k_status[j];
        c_seq[s] := k_seq[j];
        c_wake[s] := CASE WHEN k_due[j] THEN moment ELSE k_wake[j] END;
        c_worker[s] := k_worker[j];
        IF w_owner IS NOT NULL THEN
          INSERT INTO ~waits SELECT c_run[s], u.effect, u.key, u.reason, u.since, u.until
            FROM unnest(w_owner, w_effect, w_key, w_reason, w_since, w_until) u(owner, effect, key, reason, since, until)
            WHERE u.owner = -j;
        END IF;
        IF k_worker[j] IS NULL THEN ready := true; END IF;
      END IF;
`;

/** Delivery; the order of the checks is that of the contract. */
export const messageSql = `
    ELSIF kind = 4 THEN
      s := m_slot[j];
      state := NULL;
      rs := NULL;
      IF c_run[s] IS NULL THEN
        results[a] := 'n';
      ELSE
        SELECT digest INTO known FROM ~mailbox WHERE run = c_run[s] AND id = m_id[j];
        IF FOUND THEN
          results[a] := CASE WHEN known.digest = m_digest[j] THEN 'd1' ELSE 'd0' END;
        ELSIF c_moving[s] IS NOT NULL OR c_moving[m_recall_slot[j]] IS NOT NULL THEN
          results[a] := 'v' || coalesce(c_moving[s], c_moving[m_recall_slot[j]]);
        ELSIF m_failed[j] AND c_status[s] <> 'failed' THEN
          results[a] := 'f' || c_status[s];
        ELSIF NOT m_failed[j] AND c_status[s] NOT IN ('running', 'waiting') AND NOT (c_status[s] = 'failed' AND c_wake[s] IS NOT NULL) THEN
          results[a] := 'e' || c_status[s];
        ELSIF m_effect[j] IS NOT NULL AND NOT EXISTS (
          SELECT FROM ~waits WHERE run = c_run[s] AND effect_id = m_effect[j] AND wait_key = m_key[j])
        THEN
          results[a] := 'w';
        ELSIF m_waiting[j] AND NOT EXISTS (SELECT FROM ~waits WHERE wait_key = m_key[j] AND run = c_run[s]) THEN
          results[a] := 'w';
        ELSE
          IF m_recall_slot[j] IS NOT NULL AND c_run[m_recall_slot[j]] IS NOT NULL THEN
            rs := m_recall_slot[j];
            SELECT CASE WHEN payload IS NOT NULL THEN 'open' WHEN recalled THEN 'recalled' ELSE 'taken' END INTO state
            FROM ~mailbox WHERE run = c_run[rs] AND id = m_recall_id[j];
          END IF;
          IF m_counts[j] AND m_limit[j] IS NOT NULL AND c_mail[s] IS NULL THEN
            c_mail[s] := (SELECT count(*) FROM ~mailbox m
              WHERE m.run = c_run[s] AND m.payload IS NOT NULL AND m.kind NOT IN ('control', 'child_end'));
          END IF;
          IF state = 'taken' THEN
            results[a] := 't';
          -- A run that waits for this very message is not kept from going on, which is what empties its mailbox.
          ELSIF m_counts[j] AND c_mail[s] >= m_limit[j] AND NOT (
            EXISTS (SELECT FROM ~waits WHERE wait_key = m_key[j] AND run = c_run[s])
            AND NOT EXISTS (SELECT FROM ~mailbox m WHERE m.run = c_run[s] AND m.payload IS NOT NULL AND m.key = m_key[j]))
          THEN
            results[a] := 'F';
          ELSE
            IF m_counts[j] THEN c_mail[s] := c_mail[s] + 1; END IF;
            IF state = 'open' THEN
              UPDATE ~mailbox SET payload = NULL, recalled = true WHERE run = c_run[rs] AND id = m_recall_id[j];
              c_mail[rs] := NULL;
            END IF;
            INSERT INTO ~mailbox (run, id, kind, key, payload, digest, actor_id, at)
              VALUES (c_run[s], m_id[j], m_kind[j], m_key[j], m_payload[j], m_digest[j], m_actor[j], moment);
            results[a] := 's';
            IF c_worker[s] IS NOT NULL THEN
              -- A holder sees it when it parks, at the latest; should the holder die, its run is made ready (S5).
              results[a] := 'h' || c_worker[s];
              holders := holders || c_worker[s];
            ELSE
              -- A cancel, say, needs none of the code that is missing.
              IF m_kind[j] = 'control' AND c_blocked[s] IS NOT NULL AND NOT c_quarantined[s] THEN
                c_blocked[s] := NULL;
                c_tried[s] := NULL;
                c_dirty[s] := true;
              END IF;
              IF c_wake[s] IS NULL OR c_wake[s] > moment THEN
                c_wake[s] := moment;
                c_dirty[s] := true;
              END IF;
              c_moved[s] := true;
              ready := true;
            END IF;
          END IF;
        END IF;
      END IF;
`;

/** What gives a run back. */
export const releaseSql = `
    ELSIF kind = 6 THEN
      s := l_slot[j];
      IF c_run[s] IS NOT NULL AND c_worker[s] = l_worker[j] AND c_epoch[s] = l_epoch[j] THEN
        c_worker[s] := NULL;
        c_dirty[s] := true;
        c_moved[s] := true;
        IF c_queue[s] IS NOT NULL THEN freed := freed || c_queue[s]; END IF;
        -- Mail that the holder has not seen may be what the run needs, a cancel say: it is looked at before the run is blocked (S5).
        held := EXISTS (SELECT FROM ~mailbox m WHERE m.run = c_run[s] AND m.position > coalesce(l_seen[j], 0) AND m.payload IS NOT NULL);
        IF l_blocked[j] IS NOT NULL AND (l_quarantine[j] OR l_seen[j] IS NULL OR NOT held) THEN
          c_blocked[s] := l_blocked[j];
          c_quarantined[s] := l_quarantine[j];
          c_tried[s] := (coalesce(c_tried[s]::text[], '{}') || l_fingerprint[j])::text;
          newly_blocked := newly_blocked + 1;
        -- One that failed goes on only if there is mail which may want that.
        ELSIF c_status[s] NOT IN ('running', 'waiting') AND NOT held THEN
          c_wake[s] := NULL;
        ELSE
          IF c_wake[s] IS NULL OR c_wake[s] > moment THEN c_wake[s] := moment; END IF;
          ready := true;
        END IF;
      END IF;

    ELSIF kind = 7 THEN
      s := l_slot[j];
      results[a] := 'f';
      IF c_run[s] IS NOT NULL AND c_blocked[s] IS NOT NULL AND c_moving[s] IS NULL THEN
        results[a] := 't';
        c_blocked[s] := NULL;
        c_quarantined[s] := false;
        c_tried[s] := NULL;
        IF c_wake[s] IS NULL OR c_wake[s] > moment THEN c_wake[s] := moment; END IF;
        c_dirty[s] := true;
        c_moved[s] := true;
        ready := true;
      END IF;
`;
