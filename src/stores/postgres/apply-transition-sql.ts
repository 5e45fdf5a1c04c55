/** Parts of `apply` about one transition: whether it may be written, its writing, and what becomes of its lease. */

/** Whether it may be written, or stands already (S1, S2). */
export const checkSql = `
      IF kind IN (1, 9) THEN
        problem := t_problem[j];
        IF problem IS NULL AND array_length(broken, 1) > 0 AND (s || ' ' || t_epoch[j] || ' ' || t_worker[j]) = ANY (broken) THEN
          problem := 'the commit before it failed';
        END IF;
        IF problem IS NOT NULL THEN
          NULL;
        ELSIF c_run[s] IS NULL THEN
          problem := 'it does not exist';
        ELSE
          held := coalesce(c_worker[s] = t_worker[j] AND c_epoch[s] = t_epoch[j], false);
          -- Before everything else: a lost acknowledgement is not a conflict, even if the run has moved on since.
          IF t_count[j] > 0 AND c_seq[s] > t_after[j] THEN
            INSERT INTO ~records SELECT u.run, u.seq, u.header, u.body
              FROM unnest(r_run, r_seq, r_header, r_body) u(run, seq, header, body) WHERE u.run IS NOT NULL;
            r_run := array_fill(NULL::bigint, ARRAY[array_length(r_seq, 1)]);
            t_stands[j] := true;
            FOR k IN t_from[j] .. t_from[j] + t_count[j] - 1 LOOP
              PERFORM FROM ~records WHERE run = c_run[s] AND seq = r_seq[k] AND header = r_header[k];
              IF NOT FOUND THEN
                t_stands[j] := false;
                EXIT;
              END IF;
            END LOOP;
          END IF;
          IF t_stands[j] THEN
            NULL;
          ELSIF c_seq[s] <> t_after[j] THEN
            problem := 'its last record is ' || c_seq[s] || ', not ' || t_after[j];
          ELSIF held THEN
            k := dp;
            WHILE d_owner[k] < j LOOP k := k + 1; END LOOP;
            WHILE d_owner[k] = j LOOP
              SELECT payload IS NOT NULL AS here, recalled INTO known FROM ~mailbox WHERE run = c_run[s] AND id = d_id[k];
              IF NOT FOUND OR NOT known.here THEN
                problem := 'message "' || d_id[k] || '" is not there to be taken'
                  || CASE WHEN known.recalled THEN ': its sender has recalled it' ELSE '' END;
                EXIT;
              END IF;
              k := k + 1;
            END LOOP;
          ELSIF t_bare[j] AND c_worker[s] IS NULL AND c_epoch[s] = t_epoch[j] THEN
            -- Nothing but a release, of a run that is released: the acknowledgement was lost here, too.
            t_stands[j] := true;
          ELSIF c_worker[s] IS NULL THEN
            problem := 'its lease was given up';
          ELSE
            problem := 'it is leased to worker ' || c_worker[s] || ', epoch ' || c_epoch[s];
          END IF;
        END IF;
        IF problem IS NULL AND a_id IS NOT NULL AND NOT t_stands[j] THEN
          FOR k IN 1 .. array_length(a_id, 1) LOOP
            CONTINUE WHEN a_check[k] <> j OR a_id[k] = ANY (artifacts);
            rs := CASE WHEN a_owner[k] > 0 THEN t_slot[a_owner[k]] ELSE k_slot[-a_owner[k]] END;
            -- A child that exists is left as it is.
            CONTINUE WHEN a_owner[k] < 0 AND (c_run[rs] IS NOT NULL OR EXISTS (SELECT FROM ~tombstones WHERE run_id = s_id[rs]));
            problem := rs || ' ' || a_id[k];
            results[a] := 'a' || problem;
            EXIT;
          END LOOP;
        END IF;
        IF problem IS NOT NULL THEN
          failed_call := o_call[a];
          IF results[a] = '' THEN results[a] := 'c' || problem; END IF;
          -- What was sent behind it fails, too (S3), for each transition of the call.
          FOR i IN 1 .. array_length(o_kind, 1) LOOP
            IF o_call[i] = failed_call AND o_kind[i] IN (1, 9) THEN
              k := o_ref[i];
              broken := broken || (t_slot[k] || ' ' || t_epoch[k] || ' ' || t_worker[k]);
            END IF;
          END LOOP;
        END IF;
      END IF;
`;

/** What belongs to other tables than those of runs and records, which are written at the end. */
export const writeSql = `
      IF kind IN (2, 9) AND problem IS NULL AND NOT t_stands[j] THEN
        FOR k IN t_from[j] .. t_from[j] + t_count[j] - 1 LOOP
          r_run[k] := c_run[s];
        END LOOP;
        IF t_drop[j] IS NOT NULL THEN
          DELETE FROM ~records WHERE run = c_run[s] AND seq < t_drop[j];
          DELETE FROM ~checkpoints WHERE run = c_run[s] AND seq < t_drop[j];
          UPDATE ~runs SET archived_before = t_drop[j] WHERE run = c_run[s];
        END IF;
        WHILE p_owner[pp] < j LOOP pp := pp + 1; END LOOP;
        IF p_owner[pp] = j THEN
          INSERT INTO ~checkpoints VALUES (c_run[s], p_seq[pp], p_ordinal[pp], p_state[pp])
            ON CONFLICT (run, seq) DO UPDATE SET ordinal = excluded.ordinal, state = excluded.state;
          IF p_drop[pp] <> '' THEN
            DELETE FROM ~checkpoints WHERE run = c_run[s] AND ordinal = ANY (string_to_array(p_drop[pp], ',')::int[]);
          END IF;
        END IF;
        WHILE d_owner[dp] < j LOOP dp := dp + 1; END LOOP;
        WHILE d_owner[dp] = j LOOP
          UPDATE ~mailbox SET payload = NULL WHERE run = c_run[s] AND id = d_id[dp];
          c_mail[s] := NULL;
          dp := dp + 1;
        END LOOP;
        -- Closed first: an effect may wait again.
        WHILE x_owner[xp] < j LOOP xp := xp + 1; END LOOP;
        WHILE x_owner[xp] = j LOOP
          DELETE FROM ~waits WHERE run = c_run[s] AND effect_id = x_effect[xp];
          xp := xp + 1;
        END LOOP;
        WHILE w_owner[wp] < j LOOP wp := wp + 1; END LOOP;
        WHILE w_owner[wp] = j LOOP
          INSERT INTO ~waits VALUES (c_run[s], w_effect[wp], w_key[wp], w_reason[wp], w_since[wp], w_until[wp])
            ON CONFLICT (run, effect_id) DO UPDATE
            SET wait_key = excluded.wait_key, reason = excluded.reason, since = excluded.since, until = excluded.until;
          wp := wp + 1;
        END LOOP;
        WHILE i_owner[ip] < j LOOP ip := ip + 1; END LOOP;
        WHILE i_owner[ip] = j LOOP
          IF i_value[ip] IS NULL THEN
            DELETE FROM ~run_vars WHERE run = c_run[s] AND path = i_path[ip];
          ELSE
            INSERT INTO ~run_vars VALUES (c_run[s], i_path[ip], i_value[ip])
              ON CONFLICT (run, path) DO UPDATE SET value = excluded.value;
          END IF;
          ip := ip + 1;
        END LOOP;
        IF a_id IS NOT NULL THEN
          INSERT INTO ~artifact_runs SELECT c_run[s], u.id FROM unnest(a_owner, a_id) u(owner, id)
            WHERE u.owner = j ORDER BY u.id ON CONFLICT DO NOTHING;
        END IF;
        t_written[j] := true;
        IF c_status[s] <> t_status[j] THEN c_moved[s] := true; END IF;
        c_status[s] := t_status[j];
        c_seq[s] := t_seq[j];
        c_wake[s] := t_wake[j];
        c_last[s] := j;
        c_dirty[s] := true;
        IF t_count[j] > 0 AND c_tried[s] IS NOT NULL THEN c_tried[s] := NULL; END IF;
        IF c_status[s] NOT IN ('running', 'waiting') THEN DELETE FROM ~waits WHERE run = c_run[s]; END IF;
      END IF;
`;

/** Its lease, when it is over or is to be handed back. */
export const finishSql = `
      IF kind IN (5, 9) AND problem IS NULL THEN
        held := coalesce(c_worker[s] = t_worker[j] AND c_epoch[s] = t_epoch[j], false);
        IF NOT t_stands[j] AND c_status[s] IN ('completed', 'cancelled') THEN
          c_worker[s] := NULL;
          c_moved[s] := true;
          IF c_queue[s] IS NOT NULL THEN freed := freed || c_queue[s]; END IF;
        ELSIF t_release[j] AND held AND (NOT t_stands[j] OR (t_count[j] > 0 AND c_seq[s] = r_seq[t_from[j] + t_count[j] - 1])) THEN
          -- A lease is given up unless there is mail that the holder has not looked at (S5). A holder that never heard of it is told
          -- again, or it would take the run for released, and nobody would drive it.
          SELECT json_agg(json_build_array(m.position, m.id, m.kind, m.key, m.payload, m.at, m.actor_id) ORDER BY m.position)::text INTO mail
          FROM ~mailbox m WHERE m.run = c_run[s] AND m.position > t_seen[j] AND m.payload IS NOT NULL;
          IF mail IS NOT NULL THEN
            results[a] := 'm' || mail;
          ELSE
            c_worker[s] := NULL;
            c_dirty[s] := true;
            c_moved[s] := true;
            IF c_queue[s] IS NOT NULL THEN freed := freed || c_queue[s]; END IF;
            IF c_wake[s] <= moment THEN ready := true; END IF;
          END IF;
        END IF;
      END IF;
`;
