/** Every error code with its message. Every code has its page `docs/errors/<CODE>.md`, held by a test. */
export type Say<F> = (fields: F) => string;

const entry = <F>(fact: Say<F>, next: Say<F>): { fact: Say<F>; next: Say<F> } => ({ fact, next });

/** Every code: the fact it states and the next step it offers. */
export const catalogue = {
  // Definitions and options
  INVALID_OPTION: entry<{ option: string; problem: string; suggestion?: string }>(
    (f) => f.problem,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : "Check the call against its documentation."),
  ),
  WORKFLOW_INVALID: entry<{ workflowId: string; problem: string; suggestion?: string }>(
    (f) => `workflow "${f.workflowId}" is not valid: ${f.problem}`,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : "Correct the definition; no run was touched."),
  ),
  WORKFLOW_UNKNOWN: entry<{ workflowId: string; known: readonly string[]; suggestion?: string }>(
    (f) => `workflow "${f.workflowId}" is not registered with this runtime (known: ${listed(f.known)})`,
    (f) =>
      `${f.suggestion ? `Did you mean "${f.suggestion}"? ` : ""}Pass it in createRuntime({ workflows }). Stored runs are unchanged.`,
  ),
  WORKFLOW_INCOMPATIBLE: entry<{ runId: string; workflowId: string; problem: string; suggestion?: string }>(
    (f) => `run ${f.runId} cannot go on under this version of workflow "${f.workflowId}": ${f.problem}`,
    (f) =>
      `${f.suggestion ? `Did you mean "${f.suggestion}"? ` : ""}Add what is missing back, or a migration. The run is unchanged, and goes on once a worker has such code.`,
  ),
  NODE_UNKNOWN: entry<{ workflowId: string; nodeId: string; by: string; suggestion?: string }>(
    (f) => `${f.by} names node "${f.nodeId}", which workflow "${f.workflowId}" does not have`,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : "Add the node or correct the name."),
  ),
  PLAN_INVALID: entry<{ nodeId: string; problem: string; suggestion?: string }>(
    (f) => `node "${f.nodeId}" returned a plan that cannot be carried out: ${f.problem}`,
    (f) =>
      f.suggestion
        ? `Did you mean "${f.suggestion}"?`
        : "Return goto(...), complete(...), fail(...) or an effect with a nextNode.",
  ),
  NODE_FAILED: entry<{ nodeId: string; problem: string }>(
    (f) => `node "${f.nodeId}" threw: ${f.problem}`,
    () => "See the recorded stack and mend the node. A retry of the run runs it again, unless what it had done was undone.",
  ),
  NODE_TIMEOUT: entry<{ nodeId: string; timeoutMs: number }>(
    (f) => `node "${f.nodeId}" did not return within ${f.timeoutMs} ms`,
    () => "Move slow work into an effect, or raise the node's timeoutMs.",
  ),
  RUN_FAILED_BY_PLAN: entry<{ nodeId: string; problem: string }>(
    (f) => f.problem,
    (f) => `Node "${f.nodeId}" ended the run with fail(...).`,
  ),

  // What may be stored
  NOT_JSON: entry<{ path: string; problem: string }>(
    (f) => `${f.path} cannot be stored: ${f.problem}`,
    () => "Store plain JSON: texts, finite numbers, booleans, null, arrays and plain objects.",
  ),
  JSON_TOO_DEEP: entry<{ path: string; limit: number }>(
    (f) => `${f.path} is nested deeper than ${f.limit} levels`,
    () => "Flatten the value, or raise limits.jsonDepth.",
  ),
  TOO_LARGE: entry<{ what: string; limitBytes: number; sizeBytes: number }>(
    (f) => `${f.what} takes ${f.sizeBytes} bytes; the limit is ${f.limitBytes}`,
    () => "Keep large values elsewhere and store a reference, or raise the limit in createRuntime({ limits }).",
  ),
  VARS_INVALID: entry<{ workflowId: string; issues: readonly string[] }>(
    (f) => `vars do not fit the schema of workflow "${f.workflowId}": ${f.issues.join("; ")}`,
    () => "Correct the vars; no run was started.",
  ),
  RESULT_KEY_INVALID: entry<{ key: string; problem: string }>(
    (f) => `result key "${f.key}" cannot be written: ${f.problem}`,
    () => "Use a dotted path of ordinary names.",
  ),

  // Effects
  EFFECT_UNKNOWN: entry<{ effectType: string; runId: string; declared?: boolean; suggestion?: string }>(
    (f) => `run ${f.runId} requests effect "${f.effectType}", which this process has no handler for`,
    (f) =>
      f.declared
        ? "The workflow only says that it uses it: put its handler into the runtime's effects, which a file for the command line exports as `effects`; the run waits, unchanged."
        : `${f.suggestion ? `Did you mean "${f.suggestion}"? ` : ""}Register it in the workflow's or the runtime's effects; the run waits, unchanged.`,
  ),
  EFFECT_FAILED: entry<{ effectType: string; attempts: number; problem: string }>(
    (f) => `effect "${f.effectType}" failed after ${f.attempts} ${f.attempts === 1 ? "attempt" : "attempts"}: ${f.problem}`,
    () => "See the recorded error; mend the cause, or route it with errorNode.",
  ),
  EFFECT_TIMEOUT: entry<{ effectType: string; timeoutMs: number }>(
    (f) => `effect "${f.effectType}" did not settle within ${f.timeoutMs} ms`,
    () => "Honour ctx.signal, call ctx.progress(), or raise policy.timeoutMs.",
  ),
  EFFECT_UNCERTAIN: entry<{ effectType: string; idempotencyKey: string; problem: string }>(
    (f) => `whether effect "${f.effectType}" happened is not known: ${f.problem}`,
    (f) => `Look it up at the other side under idempotency key ${f.idempotencyKey}.`,
  ),
  BUDGET_EXCEEDED: entry<{ runId: string; problem: string; reason?: string }>(
    (f) => `stopped at the budget of run ${f.runId}: ${f.problem}${f.reason === undefined ? "" : ` (${cut(f.reason)})`}`,
    () => "Give the effect an errorNode to go on without it, or retry the run and raise its budget when it asks.",
  ),
  EFFECT_INPUT_INVALID: entry<{ effectType: string; issues: readonly string[] }>(
    (f) => `the payload of effect "${f.effectType}" does not fit its schema: ${f.issues.join("; ")}`,
    () => "Correct the plan that requested it; nothing was executed.",
  ),

  // Models
  LLM_UNAVAILABLE: entry<{ model: string; problem: string; status?: number }>(
    (f) => `model "${f.model}" did not answer${f.status === undefined ? "" : ` (${f.status})`}: ${f.problem}`,
    () => "It is tried as often as its policy says. Check that the provider can be reached, and its limits.",
  ),
  LLM_REFUSED: entry<{ model: string; problem: string; status?: number }>(
    (f) => `the request to model "${f.model}" was refused${f.status === undefined ? "" : ` (${f.status})`}: ${f.problem}`,
    () => "Another attempt would be refused too. Correct the request, the key or the address.",
  ),
  LLM_OUTPUT_INVALID: entry<{ model: string; problem: string }>(
    (f) => `what model "${f.model}" gave cannot be used: ${f.problem}`,
    () => "It is asked as often as its policy says. Say more clearly what is wanted, or ask for less at once.",
  ),
  LLM_MODEL_UNKNOWN: entry<{ model: string; known: readonly string[]; suggestion?: string }>(
    (f) => `this process has no model "${f.model}" (known: ${listed(f.known)})`,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : "Add it to the models of localLlm(), or name another one."),
  ),
  LLM_BASE_URL_REFUSED: entry<{ baseUrl: string; problem: string }>(
    (f) => `requests may not be routed to "${f.baseUrl}": ${f.problem}`,
    () => "Add it to allowBaseUrls of remoteLlm(), if whoever chose it may choose where prompts go. Nothing was sent.",
  ),

  // Tools: codes of results, which models see too
  TOOL_UNKNOWN: entry<{ tool: string; known: readonly string[]; suggestion?: string }>(
    (f) => `there is no tool "${f.tool}"`,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : `The tools are: ${listed(f.known)}.`),
  ),
  TOOL_CALL_INVALID: entry<{ problem: string }>(
    (f) => `the tool call cannot be carried out: ${f.problem}`,
    () => "Nothing was carried out.",
  ),
  TOOL_ARGUMENTS_INVALID: entry<{ tool: string; problem: string }>(
    (f) => `the arguments of tool "${f.tool}" do not fit: ${f.problem}`,
    () => "Correct them and call it again; nothing was carried out.",
  ),
  TOOL_DENIED: entry<{ tool: string; reason?: string }>(
    (f) => `the call of tool "${f.tool}" was denied${f.reason ? `: ${f.reason}` : ""}`,
    () => "Nothing was carried out.",
  ),
  TOOL_TIMEOUT: entry<{ tool: string; timeoutMs: number }>(
    (f) => `tool "${f.tool}" did not answer within ${f.timeoutMs} ms`,
    () => "It may have done its work all the same.",
  ),
  TOOL_OUTPUT_INVALID: entry<{ tool: string; problem: string }>(
    (f) => `what tool "${f.tool}" gave cannot be recorded: ${f.problem}`,
    () => "It was carried out.",
  ),

  // Waits and messages
  NOT_WAITING: entry<{ runId: string; status: string }>(
    (f) => `run ${f.runId} is not waiting for an answer (status ${f.status})`,
    () => "Look at `abstractruntime why RUN`.",
  ),
  WAIT_KEY_MISMATCH: entry<{ runId: string; waitKey: string; open: readonly string[]; suggestion?: string }>(
    (f) => `run ${f.runId} does not wait under key "${f.waitKey}" (it waits under: ${listed(f.open)})`,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : "Answer one of the open waits."),
  ),
  WAIT_AMBIGUOUS: entry<{ runId: string; open: readonly string[] }>(
    (f) => `run ${f.runId} has several open waits: ${listed(f.open)}`,
    () => "Name one with resume(runId, { waitKey, payload }).",
  ),
  ALREADY_ANSWERED: entry<{ runId: string; waitKey: string }>(
    (f) => `the wait "${f.waitKey}" of run ${f.runId} has been answered already`,
    () => "The first answer stands.",
  ),
  ANSWER_INVALID: entry<{ runId: string; waitKey: string; problem: string; suggestion?: string }>(
    (f) => `the answer to "${f.waitKey}" was refused: ${f.problem}`,
    (f) => `${f.suggestion ? `Did you mean "${f.suggestion}"? ` : ""}The run still waits; answer again.`,
  ),
  WAIT_TIMEOUT: entry<{ waitKey: string; timeoutMs: number }>(
    (f) => `nothing arrived for wait "${f.waitKey}" within ${f.timeoutMs} ms`,
    () => "Give the wait a timeoutNode to go on without an answer.",
  ),
  MAILBOX_FULL: entry<{ runId: string; limit: number }>(
    (f) => `the mailbox of run ${f.runId} holds ${f.limit} messages that it has not taken`,
    () => "Send later, or raise limits.mailboxMessages; this message was not stored.",
  ),

  MESSAGE_ID_REUSED: entry<{ runId: string; id: string }>(
    (f) => `run ${f.runId} was sent another message with id "${f.id}"`,
    () => "An id stands for one content, so that sending again is safe: use a new id. This message was not stored.",
  ),

  // Runs
  RUN_ENDED: entry<{ runId: string; status: string }>(
    (f) => `run ${f.runId} has ended (${f.status})`,
    (f) =>
      f.status === "failed" ? "Nothing was changed; unless it was undone, retry(runId) lets it go on." : "Nothing was changed.",
  ),
  NOT_FAILED: entry<{ runId: string; status: string }>(
    (f) => `run ${f.runId} has not failed (status ${f.status})`,
    () => "Only failed runs are tried again; nothing was changed.",
  ),
  RETRY_REFUSED: entry<{ runId: string; problem: string }>(
    (f) => `run ${f.runId} cannot be tried again: ${f.problem}`,
    () => "Nothing was changed. Start a new run if the work is still wanted.",
  ),
  CHILD_UNKNOWN: entry<{ runId: string; subRunId: string }>(
    (f) => `run ${f.runId} has no child ${f.subRunId}`,
    () => "Join what subworkflow(..., { detached: true }) gave as subRunId.",
  ),
  CHILD_TOO_DEEP: entry<{ runId: string; depth: number; limit: number }>(
    (f) =>
      `run ${f.runId} may not start a child: it would stand ${f.depth} levels below the first run, and the limit is ${f.limit}`,
    () => "Look for a workflow that starts itself without end, or raise limits.childDepth.",
  ),
  RUN_NOT_FOUND: entry<{ runId: string; suggestion?: string }>(
    (f) => `there is no run ${f.runId} in this store`,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : "List runs with `abstractruntime ls`, and check --store."),
  ),
  RUN_EXISTS: entry<{ runId: string; problem: string }>(
    (f) => `run ${f.runId} exists with ${f.problem}`,
    () => "Choose another runId; the existing run is unchanged.",
  ),
  RUN_PURGED: entry<{ runId: string; purgedAt: number; note?: string }>(
    (f) => `run ${f.runId} was purged from this store on ${new Date(f.purgedAt).toISOString()}${f.note ? ` (${f.note})` : ""}`,
    () => "Its id stays taken, so that nothing which it did is done again under it. An archive of it can be imported again.",
  ),
  RUN_MOVED: entry<{ runId: string; to: string; phase: "leaving" | "left" | "arriving" }>(
    (f) =>
      f.phase === "left"
        ? `run ${f.runId} has moved to ${f.to}`
        : `run ${f.runId} is on its way ${f.phase === "leaving" ? "to" : "here from"} ${f.to}`,
    (f) =>
      f.phase === "left"
        ? "Nothing was changed; go on with it there."
        : "Nothing was changed; try again when it has arrived. `abstractruntime move` with the same stores completes a move that was cut off.",
  ),
  MOVE_REFUSED: entry<{ runId: string; problem: string }>(
    (f) => `run ${f.runId} cannot be moved: ${f.problem}`,
    () => "Nothing was changed.",
  ),
  RUN_BUSY: entry<{ runId: string; workerId: string }>(
    (f) => `run ${f.runId} is being driven by worker ${f.workerId}`,
    () => "Wait for it with result(runId), or try again later.",
  ),
  RUN_BLOCKED: entry<{ runId: string; code: string; problem: string }>(
    (f) => `run ${f.runId} is blocked (${f.code}): ${f.problem}`,
    () => "Open the store with the code that it needs; it goes on by itself.",
  ),
  RUN_QUARANTINED: entry<{ runId: string; problem: string }>(
    (f) => `run ${f.runId} is quarantined: ${f.problem}`,
    () => "Inspect it with `abstractruntime verify RUN`; after mending, lift it with `abstractruntime verify RUN --lift`.",
  ),
  RUN_FAILED: entry<{ runId: string; problem: string }>(
    (f) => `run ${f.runId} failed: ${f.problem}`,
    (f) => `\`abstractruntime why ${f.runId}\` says what failed, and whether it can be tried again.`,
  ),
  RUN_CANCELLED: entry<{ runId: string; reason?: string }>(
    (f) => `run ${f.runId} was cancelled${f.reason ? `: ${f.reason}` : ""}`,
    () => "Start a new run if the work is still wanted.",
  ),
  RUN_TOO_LONG: entry<{ runId: string; limit: number }>(
    (f) => `run ${f.runId} has as many records as a run may have: ${f.limit}`,
    () => "Let a new run go on from its vars, and cancel this one.",
  ),
  RESULT_TIMEOUT: entry<{ runId: string; timeoutMs: number; status: string }>(
    (f) => `run ${f.runId} did not end within ${f.timeoutMs} ms (status ${f.status})`,
    () => "It goes on; ask again, or look at `abstractruntime why RUN`.",
  ),
  SEQ_NOT_FOUND: entry<{ runId: string; seq: number; last: number }>(
    (f) => `run ${f.runId} has no record ${f.seq} (the last is ${f.last})`,
    () => "Choose a seq from its ledger.",
  ),
  BEFORE_START: entry<{ runId: string; at: number; startedAt: number }>(
    (f) => `run ${f.runId} did not exist at ${new Date(f.at).toISOString()}: it began at ${new Date(f.startedAt).toISOString()}`,
    () => "Choose a later moment, or a seq from its ledger.",
  ),
  FORK_OPEN_EFFECTS: entry<{ runId: string; seq: number; effects: readonly string[] }>(
    (f) => `run ${f.runId} had effects open at record ${f.seq}, which a fork cannot share: ${listed(f.effects)}`,
    () =>
      'Fork with open: "restart", which runs the step that requested them again, or name a record before it. Nothing was started.',
  ),
  FORK_REFUSED: entry<{ runId: string; seq: number; problem: string }>(
    (f) => `run ${f.runId} cannot be forked at record ${f.seq}: ${f.problem}`,
    () => "Name another record with atSeq; nothing was started.",
  ),
  SNAPSHOT_NOT_FOUND: entry<{ snapshotId: string }>(
    (f) => `there is no snapshot ${f.snapshotId} in this store`,
    () => "List them with runtime.snapshots.list() or `abstractruntime snapshot ls`.",
  ),
  RECORDS_ARCHIVED: entry<{ runId: string; seq: number; before: number }>(
    (f) => `record ${f.seq} of run ${f.runId} was archived: its ledger here begins with record ${f.before}`,
    () => "Ask for what is kept, or look into the file that the older records were written to.",
  ),
  RUNTIME_STOPPED: entry<Record<never, never>>(
    () => "this runtime was stopped",
    () => "Create a new one; runs go on from where they stand.",
  ),

  // Schedules
  SCHEDULE_INVALID: entry<{ scheduleId: string; option: string; problem: string; suggestion?: string }>(
    (f) => `schedule "${f.scheduleId}" cannot be used: ${f.problem}`,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : `Correct ${f.option}; no schedule was made.`),
  ),
  SCHEDULE_EXISTS: entry<{ scheduleId: string; different: readonly string[] }>(
    (f) => `schedule "${f.scheduleId}" exists with another ${listed(f.different)}`,
    () => "It is unchanged. Delete it first, or choose another id.",
  ),
  SCHEDULE_NOT_FOUND: entry<{ scheduleId: string; ended?: string; suggestion?: string }>(
    (f) =>
      f.ended === undefined
        ? `there is no schedule "${f.scheduleId}" in this store`
        : `schedule "${f.scheduleId}" has ended (${f.ended}) and fires no more`,
    (f) => (f.suggestion ? `Did you mean "${f.suggestion}"?` : "List them with runtime.schedules.list()."),
  ),

  // Artifacts
  ARTIFACT_MISSING: entry<{ artifactId?: string; runId?: string; blob?: string; store?: string }>(
    (f) =>
      f.blob !== undefined
        ? `the bytes of ${f.artifactId === undefined ? "an artifact" : `artifact ${f.artifactId}`} are not in ${f.store}, under key ${f.blob}`
        : f.runId !== undefined
          ? `run ${f.runId} refers to artifact ${f.artifactId}, which its store does not know`
          : `there is no artifact ${f.artifactId} in this store`,
    (f) =>
      f.blob !== undefined
        ? "Give the runtime the place where they were put, or put the same bytes again with replace: true."
        : "Put the same bytes again: they get the same id. What is put and not referred to is kept for a day.",
  ),
  ARTIFACT_CORRUPT: entry<{ artifactId: string; store: string; blob: string; problem: string }>(
    (f) => `the bytes of artifact ${f.artifactId} in ${f.store}, under key ${f.blob}, are not those that were put: ${f.problem}`,
    () => "Restore them from a backup, or put the same bytes again with replace: true.",
  ),

  // Ledger and stores
  CONFLICT: entry<{ runId: string; problem: string }>(
    (f) => `the commit for run ${f.runId} was refused: ${f.problem}`,
    () => "Another worker holds the run; load it again before going on.",
  ),
  RECORD_CORRUPT: entry<{ runId: string; seq: number; problem: string }>(
    (f) => `record ${f.seq} of run ${f.runId} is damaged: ${f.problem}`,
    (f) => `No worker drives it on. Inspect it with \`abstractruntime verify ${f.runId}\`, and restore the store from a backup.`,
  ),
  FORMAT_NEWER: entry<{ what: string; found: number; known: number }>(
    (f) => `${f.what} has format ${f.found}; this version reads up to ${f.known}`,
    () => "Upgrade abstractruntime; nothing was changed.",
  ),
  STORE_CORRUPT: entry<{ store: string; problem: string }>(
    (f) => `the store ${f.store} is damaged or not a store: ${f.problem}`,
    () => "Restore it from a backup, or choose another path.",
  ),
  STORE_UNAVAILABLE: entry<{ store: string; problem: string }>(
    (f) => `the store ${f.store} cannot be opened or written: ${f.problem}`,
    (f) =>
      /^(postgres|s3:)/.test(f.store)
        ? "Runs go on by themselves once it can be reached."
        : "Check that the path exists and may be written; runs go on once it is reachable.",
  ),
  STORE_READ_ONLY: entry<{ store: string }>(
    (f) => `the store ${f.store} may not be written`,
    () => "Give this user write permission to the file and its directory.",
  ),
  STORE_FULL: entry<{ store: string }>(
    (f) => `the disk that holds the store ${f.store} is full`,
    () => "Free space; nothing that was acknowledged is lost, and runs go on from their last commit.",
  ),
  STORE_BUSY: entry<{ store: string; waitedMs: number }>(
    (f) => `the store ${f.store} stayed locked by another process for ${f.waitedMs} ms`,
    () => "Try again; look for a process that keeps a transaction open.",
  ),
  STORE_LOCKED: entry<{ store: string }>(
    (f) => `the store ${f.store} is open already, most likely in another process, and takes one at a time`,
    () => "Stop the one that has it open; where several are to share a store, use SQLite or Postgres.",
  ),
  STORE_CLOSED: entry<{ store: string }>(
    (f) => `the store ${f.store} is closed`,
    () => "Open it again; a store belongs to the runtime that was given it.",
  ),
  TRANSACTION_UNSUPPORTED: entry<{ store: string; what: string }>(
    (f) => `the store ${f.store} has no transactions of the user's, which ${f.what} needs`,
    () => "Use a SQLite file or Postgres for this runtime; nothing was stored.",
  ),
  TRANSACTION_INVALID: entry<{ problem: string }>(
    (f) => f.problem,
    () => "Nothing of this call was stored. See docs/transactions.md.",
  ),

  // Files that runs are carried in
  PORTABLE_INVALID: entry<{ file: string; problem: string }>(
    (f) => `${f.file} cannot be imported: ${f.problem}`,
    () => "Nothing of it was imported. Take another copy of the file.",
  ),

  // Directories of the Python package
  PYTHON_DIRECTORY_INVALID: entry<{ directory: string; problem: string }>(
    (f) => `${f.directory} cannot be read as a directory of the Python package: ${f.problem}`,
    () => "Name the directory that holds its run_*.json and ledger_*.jsonl.",
  ),
  PYTHON_FILE_INVALID: entry<{ file: string; problem: string }>(
    (f) => `${f.file} cannot be used: ${f.problem}`,
    () => "Mend or remove it, and import again; what was imported stays as it is.",
  ),

  // MCP servers
  MCP_UNREACHABLE: entry<{ server: string; problem: string }>(
    (f) => `MCP server "${f.server}" cannot be reached, or refuses: ${f.problem}`,
    () => "Nothing was carried out. Check its command or URL, what it is given, and what it writes itself.",
  ),
  MCP_CALL_FAILED: entry<{ server: string; tool: string; problem: string }>(
    (f) => `MCP server "${f.server}" did not carry out tool "${f.tool}" properly: ${f.problem}`,
    () => "Look at what the server says, and at its version.",
  ),
  MCP_CALL_LOST: entry<{ server: string; tool: string; problem: string }>(
    (f) => `whether MCP server "${f.server}" carried out tool "${f.tool}" is not known: ${f.problem}`,
    () => "Look at what the tool does, and call it again only if that is harmless.",
  ),

  // Remote tool workers
  TOOL_JOB_INVALID: entry<{ problem: string }>(
    (f) => `the worker refused a job: ${f.problem}`,
    () => "Correct the request; nothing was begun.",
  ),
  TOOL_JOB_CONFLICT: entry<{ jobId: string }>(
    (f) => `job ${f.jobId} was made with another content under the same Idempotency-Key`,
    () => "A key stands for one content, so that submitting again is safe: use a new key. The job that exists is unchanged.",
  ),
  TOOL_JOB_LIMIT: entry<{ what: string; found: number; limit: number }>(
    (f) => `${f.what}: ${f.found}; the worker's limit is ${f.limit}`,
    () => "Send less or later, or raise the worker's limits.",
  ),
  TOOL_JOB_NOT_FOUND: entry<{ jobId: string; purged?: boolean }>(
    (f) => `this worker ${f.purged ? "has purged" : "does not know"} job ${f.jobId}`,
    () => "Check that it is asked at the worker it was given to; ended jobs are kept for the worker's limits.keepMs.",
  ),
  TOOL_JOB_LOST: entry<{ jobId: string }>(
    (f) => `the worker that took job ${f.jobId} does not know it any more; its tool may have been called`,
    () => "Look at what the tool does, and call it again only if that is harmless.",
  ),
  TOOL_JOB_TIMEOUT: entry<{ jobId: string; timeoutMs: number }>(
    (f) => `job ${f.jobId} did not end within ${f.timeoutMs} ms; its tool may have been called`,
    () => "Look at the worker, or allow more time with timeoutMs.",
  ),
  TOOL_JOB_FAILED: entry<{ jobId: string; problem: string }>(
    (f) => `job ${f.jobId} ended without a result: ${f.problem}`,
    () => "Look at the job in the worker's store; its tool may have been called.",
  ),
  TOOL_CALLBACK_REFUSED: entry<{ target: string }>(
    (f) => `the worker may not call back to ${f.target}`,
    () => "Add the address to the worker's callbacks.allow, or submit without it: jobs are asked for, too.",
  ),
  TOOL_WORKER_REFUSED: entry<{ status: number; problem: string }>(
    (f) => `the tool worker refused (HTTP ${f.status}): ${f.problem}`,
    (f) => (f.status === 401 ? "Check the token on both sides." : "Mend what it names; the same request would be refused again."),
  ),
  TOOL_WORKER_UNREACHABLE: entry<{ worker: string; problem: string }>(
    (f) => `the tool worker at ${f.worker} could not be reached: ${f.problem}`,
    () => "Check that it runs and can be reached from here.",
  ),
  TOOL_WORKER_INVALID: entry<{ problem: string }>(
    (f) => `the tool worker gave an answer that cannot be used: ${f.problem}`,
    () => "Check that the address is that of a tool worker, without a redirect; the tool may have been called.",
  ),

  // Command line
  FILE_INVALID: entry<{ file: string; problem: string }>(
    (f) => `${f.file} cannot be used: ${f.problem}`,
    () => "Export a workflow made by defineWorkflow from it.",
  ),
} as const;

function listed(names: readonly string[]): string {
  if (names.length === 0) return "none";
  return names.length > 10 ? `${names.slice(0, 10).join(", ")} and ${names.length - 10} more` : names.join(", ");
}

const maxText = 8_192;

export function cut(text: string): string {
  return text.length > maxText ? `${text.slice(0, maxText)}...` : text;
}
