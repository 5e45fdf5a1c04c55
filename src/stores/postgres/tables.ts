/**
 * The tables. `~` before a name stands for the store's schema.
 *
 * Texts that are hashed or come from users are `text`, never `jsonb`: they come back as they were written. Texts compare by their
 * bytes (`COLLATE "C"`), so that nothing depends on the language of the server. Rows of runs leave room on their pages: a step
 * changes no column that an index has, so its new version stays on the page and no index is written.
 */
export const migrations: readonly string[] = [
  `
  -- A line in which runs stand for a worker: one for each workflow, queue and priority, and for those of a queue that have begun,
  -- which its rate does not hold up. Claims look at the heads of the lanes that they know: what stands in others costs nothing.
  CREATE TABLE ~lanes (
    lane bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow_id text COLLATE "C" NOT NULL,
    queue text COLLATE "C",
    priority bigint NOT NULL,
    begun boolean NOT NULL
  );
  CREATE UNIQUE INDEX lanes_queued ON ~lanes (workflow_id, queue, priority, begun) WHERE queue IS NOT NULL;
  CREATE UNIQUE INDEX lanes_plain ON ~lanes (workflow_id, priority) WHERE queue IS NULL;

  -- Numbers runs in the order of their creation.
  CREATE SEQUENCE ~run_numbers;

  CREATE TABLE ~runs (
    run bigint PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    version text NOT NULL,
    status text COLLATE "C" NOT NULL,
    paused boolean NOT NULL,
    node text NOT NULL,
    step bigint NOT NULL,
    seq integer NOT NULL,
    head text NOT NULL,
    wake_at bigint,
    lane bigint NOT NULL,
    queue text COLLATE "C",
    queue_key text COLLATE "C",
    priority bigint NOT NULL,
    error text,
    worker_id text COLLATE "C",
    epoch integer NOT NULL,
    -- The claim that gave it to its holder, so that a claim whose answer was lost can be answered again.
    claim text COLLATE "C",
    blocked text,
    quarantined boolean NOT NULL DEFAULT false,
    -- Fingerprints of the code that could not go on since the run last moved.
    tried text[] COLLATE "C",
    -- Records before this seq were archived.
    archived_before integer,
    -- On its way between two stores, and the moment at which it would wake.
    moving_token text COLLATE "C",
    moving_phase text COLLATE "C",
    moving_to text,
    moving_wake_at bigint,
    parent_run_id text COLLATE "C",
    -- A JSON list.
    tags text,
    actor_id text COLLATE "C",
    session_id text COLLATE "C",
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    -- The same while nobody holds it: a run that is held changes at each step, and is found among those that are held.
    rested_at bigint
  ) WITH (fillfactor = 60);
  CREATE UNIQUE INDEX runs_id ON ~runs (run_id);
  CREATE INDEX runs_due ON ~runs (lane, wake_at, run) WHERE wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL;
  -- The same by key, for lanes whose heads are of keys that have no slot.
  CREATE INDEX runs_due_keys ON ~runs (lane, queue_key, wake_at, run)
    WHERE queue IS NOT NULL AND wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL;
  -- The slots in use. The lease itself is the counter: nothing is added or taken away beside it, so that no slot can leak.
  CREATE INDEX runs_slots ON ~runs (queue, queue_key) WHERE queue IS NOT NULL AND worker_id IS NOT NULL;
  CREATE INDEX runs_held ON ~runs (worker_id) WHERE worker_id IS NOT NULL;
  CREATE INDEX runs_blocked ON ~runs (run) WHERE blocked IS NOT NULL;
  CREATE INDEX runs_parent ON ~runs (parent_run_id, run) WHERE parent_run_id IS NOT NULL;
  CREATE INDEX runs_status ON ~runs (status, run);
  CREATE INDEX runs_moving ON ~runs (moving_token) WHERE moving_token IS NOT NULL;
  -- For queries. A step changes nothing here.
  CREATE INDEX runs_workflow ON ~runs (workflow_id, run);
  CREATE INDEX runs_queue ON ~runs (queue, run) WHERE queue IS NOT NULL;
  CREATE INDEX runs_session ON ~runs (session_id, run) WHERE session_id IS NOT NULL;
  CREATE INDEX runs_actor ON ~runs (actor_id, run) WHERE actor_id IS NOT NULL;
  CREATE INDEX runs_created ON ~runs (created_at, run);
  CREATE INDEX runs_rested ON ~runs (rested_at, run) WHERE rested_at IS NOT NULL;
  -- Of all lanes together. By an expression, so that claims, which ask for one lane, are not found by it.
  CREATE INDEX runs_wake ON ~runs ((wake_at + 0), run) WHERE wake_at IS NOT NULL AND worker_id IS NULL;

  -- When runs of a queue with a rate began, for as long as that counts.
  CREATE TABLE ~begins (queue text COLLATE "C" NOT NULL, at bigint NOT NULL, run bigint NOT NULL, PRIMARY KEY (queue, at, run));

  CREATE TABLE ~waits (
    run bigint NOT NULL,
    effect_id text COLLATE "C" NOT NULL,
    wait_key text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    since bigint NOT NULL,
    until bigint,
    PRIMARY KEY (run, effect_id)
  );
  CREATE INDEX waits_key ON ~waits (wait_key, run);
  CREATE INDEX waits_reason ON ~waits (reason, run);
  CREATE INDEX waits_since ON ~waits (since, run);

  -- Also of runs that have ended.
  CREATE TABLE ~run_tags (run bigint, tag text COLLATE "C", PRIMARY KEY (run, tag));
  CREATE INDEX run_tags_tag ON ~run_tags (tag, run);
  -- Values as JSON.
  CREATE TABLE ~run_vars (run bigint, path text COLLATE "C", value text COLLATE "C" NOT NULL, PRIMARY KEY (run, path));
  CREATE INDEX run_vars_value ON ~run_vars (path, value, run);

  CREATE TABLE ~records (run bigint, seq integer, header text NOT NULL, body text, PRIMARY KEY (run, seq));

  CREATE TABLE ~checkpoints (run bigint, seq integer, ordinal integer NOT NULL, state text NOT NULL, PRIMARY KEY (run, seq));

  CREATE TABLE ~mailbox (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- NULL when it was taken, or recalled by its sender.
    payload text,
    recalled boolean NOT NULL DEFAULT false,
    digest text NOT NULL,
    actor_id text,
    at bigint NOT NULL
  );
  CREATE UNIQUE INDEX mailbox_id ON ~mailbox (run, id);
  CREATE INDEX mailbox_open ON ~mailbox (run, position) WHERE payload IS NOT NULL;

  -- Parts as a JSON list; "begin" and "finish" are where they stand in the text.
  CREATE TABLE ~streams (
    run bigint,
    step integer,
    effect_id text COLLATE "C",
    attempt integer,
    begin bigint,
    finish bigint NOT NULL,
    parts text NOT NULL,
    PRIMARY KEY (run, step, effect_id, attempt, begin)
  );

  -- Tags, name and description are kept folded for searching; "whole" is all of it as JSON. They outlive their runs.
  CREATE TABLE ~snapshots (
    snapshot_id text COLLATE "C" PRIMARY KEY,
    run_id text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    tags text[] COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    description text COLLATE "C" NOT NULL,
    whole text NOT NULL
  );
  CREATE INDEX snapshots_newest ON ~snapshots (created_at, snapshot_id);
  CREATE INDEX snapshots_run ON ~snapshots (run_id, created_at, snapshot_id);

  CREATE TABLE ~artifacts (
    id text COLLATE "C" PRIMARY KEY,
    size_bytes bigint NOT NULL,
    content_type text NOT NULL,
    created_at bigint NOT NULL,
    blob text COLLATE "C" NOT NULL,
    pinned_until bigint NOT NULL,
    -- How many runs refer to it.
    runs bigint NOT NULL DEFAULT 0
  );
  CREATE INDEX artifacts_newest ON ~artifacts (created_at, id);
  CREATE INDEX artifacts_blob ON ~artifacts (blob);
  CREATE INDEX artifacts_loose ON ~artifacts (pinned_until) WHERE runs = 0;
  CREATE TABLE ~artifact_tags (id text COLLATE "C", name text COLLATE "C", value text COLLATE "C" NOT NULL, PRIMARY KEY (id, name));
  CREATE INDEX artifact_tags_value ON ~artifact_tags (name, value, id);
  CREATE TABLE ~artifact_runs (run bigint, id text COLLATE "C", PRIMARY KEY (run, id));
  CREATE INDEX artifact_runs_id ON ~artifact_runs (id, run);
  CREATE FUNCTION ~count_artifact_runs () RETURNS trigger LANGUAGE plpgsql AS $count$
    BEGIN
      UPDATE ~artifacts SET runs = runs + CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END
        WHERE id = CASE TG_OP WHEN 'INSERT' THEN NEW.id ELSE OLD.id END;
      RETURN NULL;
    END $count$;
  CREATE TRIGGER artifact_runs_count AFTER INSERT OR DELETE ON ~artifact_runs
    FOR EACH ROW EXECUTE FUNCTION ~count_artifact_runs ();

  -- Bytes, in rows of one size. A blob without a size is not whole.
  CREATE TABLE ~blobs (
    blob bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    size_bytes bigint,
    at bigint NOT NULL
  );
  CREATE TABLE ~blob_chunks (blob bigint, number bigint, bytes bytea NOT NULL, PRIMARY KEY (blob, number));
  -- Not worth the time: what is large and could be compressed mostly is already.
  ALTER TABLE ~blob_chunks ALTER bytes SET STORAGE EXTERNAL;

  -- What is left of runs that were purged.
  CREATE TABLE ~tombstones (
    run_id text COLLATE "C" PRIMARY KEY,
    workflow_id text NOT NULL,
    status text NOT NULL,
    head text NOT NULL,
    seq integer NOT NULL,
    ended_at bigint NOT NULL,
    purged_at bigint NOT NULL,
    note text,
    epoch integer
  );

  -- Names the contents, so that a cursor of another store is known for what it is.
  CREATE TABLE ~identity (id text NOT NULL);
  INSERT INTO ~identity VALUES (md5(random()::text || clock_timestamp()::text || pg_backend_pid()::text));

  CREATE TABLE ~workers (worker_id text COLLATE "C" PRIMARY KEY, expires_at bigint NOT NULL);
  CREATE INDEX workers_expiry ON ~workers (expires_at);

  -- What is used of budgets, by the run that each was given to.
  CREATE TABLE ~counters (run bigint, name text COLLATE "C", value double precision NOT NULL, PRIMARY KEY (run, name));

  -- How many runs were ever blocked: while it stays, there is nothing new to lift.
  CREATE TABLE ~blocks (count bigint NOT NULL);
  INSERT INTO ~blocks VALUES (0);
  `,
];
