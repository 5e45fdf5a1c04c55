/** Schedules, as a program sees them: each call is a start of a run, a message to one, or a look at it. */
import { AbstractRuntimeError, type ErrorData, isError, invalidOption } from "../../kernel/errors.ts";
import { nearest } from "../../kernel/nearest.ts";
import { cloneJson, type JsonObject } from "../../kernel/json.ts";
import { isEnded, type RunState } from "../../kernel/run.ts";
import type { Moving } from "../../kernel/moving.ts";
import type { Spend } from "../../kernel/spend.ts";
import type { Loaded } from "../../kernel/transition.ts";
import type { Store } from "../../kernel/store.ts";
import type { Anything } from "../../kernel/typing.ts";
import type { Workflow } from "../../kernel/workflow.ts";
import { checkFires, checkScheduleId, checkScheduleOptions, differences, readSpec, type ScheduleOptions } from "./spec.ts";
import { missing } from "../read.ts";
import { runsOf } from "../runs-of.ts";
import { nextMoment } from "./moments.ts";
import { type ScheduleSpec, type ScheduleVars, scheduleWorkflow, scheduleWorkflowId, varsAt } from "./workflow.ts";

/** What schedules need of the runtime they belong to. */
interface ScheduleHost {
  readonly store: Store;
  /** Now, by the store's clock. */
  now(): number;
  /** A new id. */
  id(): string;
  /** @throws WORKFLOW_UNKNOWN */
  workflow(id: string): Workflow;
  /** @throws VARS_INVALID, NOT_JSON, JSON_TOO_DEEP, TOO_LARGE */
  checkVars(workflow: Workflow, vars: JsonObject): Promise<void>;
  start(workflow: Workflow | string, options: { runId: string; vars: unknown; budget?: Spend }): Promise<{ runId: string }>;
  /** The run as it is stored, mail included. */
  find(runId: string): Promise<{ state: RunState; loaded: Loaded } | undefined>;
  control(runId: string, action: "pause" | "unpause" | "cancel"): Promise<void>;
}

export interface Schedule {
  readonly id: string;
  /** What it was created with, defaults filled in. */
  readonly spec: ScheduleSpec;
  /** `completed`: `endAt` has passed. `failed`: its own run failed, see `lastError`. */
  readonly status: "active" | "completed" | "failed";
  readonly paused: boolean;
  /** The moment it waits for, in milliseconds since 1970. Null while a run is awaited, and when it has ended. */
  readonly nextAt: number | null;
  /** The moment that it last started a run for. */
  readonly lastAt?: number;
  readonly lastRunId?: string;
  /** Whether that run has not ended. */
  readonly running: boolean;
  /** Why the last run that it awaited failed, or why the last could not be started. */
  readonly lastError?: Pick<ErrorData, "code" | "message">;
  /** Why no worker drives it, such as a workflow that none of them has. */
  readonly blocked?: { code: string; problem: string };
  /** Its own run. */
  readonly runId: string;
  readonly createdAt: number;
}

interface Found {
  generation: number;
  state: RunState;
  loaded: Loaded;
  vars: ScheduleVars;
  paused: boolean;
  deleted: boolean;
}

interface Generation {
  found?: Found;
  /** It was purged here before it had ended: another store has it. */
  hasLeft?: boolean;
}

export class Schedules {
  readonly #host: ScheduleHost;

  constructor(host: ScheduleHost) {
    this.#host = host;
  }

  /**
   * Makes a schedule. It is durable when this resolves, and any process that has its workflow fires it. A second call with the same
   * options finds it, also after it has ended; after `delete` a call makes it anew.
   *
   * @throws INVALID_OPTION, SCHEDULE_INVALID, SCHEDULE_EXISTS (with other options), WORKFLOW_UNKNOWN, VARS_INVALID, NOT_JSON, TOO_LARGE,
   *   RUN_MOVED, RUN_PURGED (it fires in another store)
   */
  async create<Input = Anything>(options: ScheduleOptions<Input>): Promise<Schedule> {
    checkScheduleOptions(options);
    const given: unknown = options.workflow;
    const workflow = this.#host.workflow(typeof given === "string" ? given : String((given as Workflow | undefined)?.id));
    const spec = readSpec(options as ScheduleOptions, workflow.id);
    await this.#host.checkVars(workflow, varsAt(spec, this.#host.now()));
    for (;;) {
      const { found, generation, hasLeft } = await this.#newest(spec.id);
      if (hasLeft) throw await missing(this.#host.store, runIdOf(spec.id, generation));
      const different = found && differences(found.vars.spec, spec);
      if (found && different && stands(found, different)) {
        // Nothing fires here, and it would fire twice if another one were made.
        if (found.loaded.moving) throw movedError(found.loaded);
        if (different.length === 0) return this.#view(found);
        throw new AbstractRuntimeError("SCHEDULE_EXISTS", { scheduleId: spec.id, different });
      }
      const from = this.#host.now();
      checkFires(spec, from);
      try {
        const vars: ScheduleVars = { spec, from };
        await this.#host.start(scheduleWorkflow, { runId: runIdOf(spec.id, generation + 1), vars });
      } catch (error) {
        // Another process was faster: what it made is looked at in the next turn.
        if (!isError(error, "RUN_EXISTS")) throw error;
      }
    }
  }

  /** @throws SCHEDULE_NOT_FOUND, RUN_MOVED */
  async get(id: string): Promise<Schedule> {
    return this.#view(await this.#existing(id));
  }

  /** All schedules that were not deleted, and have not left for another store, ordered by id. */
  async list(): Promise<Schedule[]> {
    const newest = await this.#generations();
    const schedules: Schedule[] = [];
    for (const [id, generation] of [...newest].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const found = (await this.#generation(id, generation))?.found;
      if (found && !found.deleted && found.loaded.moving?.phase !== "left") schedules.push(await this.#view(found));
    }
    return schedules;
  }

  /**
   * From now on nothing fires; runs under way go on. A second call does nothing.
   *
   * @throws RUN_MOVED, SCHEDULE_NOT_FOUND, also when it has ended.
   */
  async pause(id: string): Promise<void> {
    const { state, paused } = await this.#live(id);
    if (!paused) await this.#host.control(state.runId, "pause");
  }

  /** Fires again; what came meanwhile was missed, and `catchUp` says what becomes of it. A second call does nothing. @throws As `pause`. */
  async unpause(id: string): Promise<void> {
    const { state, paused } = await this.#live(id);
    if (paused) await this.#host.control(state.runId, "unpause");
  }

  /**
   * Ends a schedule for good, by a cancel of its run. A second call does nothing, nor does one after its end.
   *
   * @throws RUN_MOVED, SCHEDULE_NOT_FOUND when there was never one.
   */
  async delete(id: string): Promise<void> {
    checkScheduleId(id);
    const { found, generation } = await this.#newest(id);
    if (generation === 0) throw await this.#unknown(id);
    if (found && !found.deleted && !isEnded(found.state)) await this.#host.control(found.state.runId, "cancel");
  }

  /**
   * Starts a run now, outside of the plan: whatever `overlap` says, also while it is paused, and without a change to when it fires
   * next. `momentKey` gets the present moment.
   *
   * @param options.key A second call with the same key finds the run that the first one started. Default: one of its own.
   * @throws SCHEDULE_NOT_FOUND, RUN_MOVED, WORKFLOW_UNKNOWN, VARS_INVALID, INVALID_OPTION
   */
  async trigger(id: string, options: { key?: string } = {}): Promise<{ runId: string }> {
    const { key = this.#host.id() } = options;
    if (typeof key !== "string" || key === "" || key.length > 50)
      throw invalidOption("key", "key must be text of 1 to 50 characters");
    const { vars, generation } = await this.#existing(id);
    const runId = `trigger:${id}~${generation}~${key}`;
    if (await this.#host.store.load(runId)) return { runId };
    try {
      const { workflowId, budget } = vars.spec;
      const given = { vars: varsAt(vars.spec, this.#host.now()), ...(budget ? { budget } : {}) };
      return await this.#host.start(workflowId, { runId, ...given });
    } catch (error) {
      // Two calls at once differ in their moments; the first one stands.
      if (isError(error, "RUN_EXISTS")) return { runId };
      throw error;
    }
  }

  // ---- Finding -----------------------------------------------------------------------------------------------------

  async #existing(id: string): Promise<Found> {
    checkScheduleId(id);
    const { found } = await this.#newest(id);
    if (!found || found.deleted) throw await this.#unknown(id);
    if (found.loaded.moving?.phase === "left") throw movedError(found.loaded);
    return found;
  }

  async #live(id: string): Promise<Found> {
    const found = await this.#existing(id);
    if (isEnded(found.state)) throw new AbstractRuntimeError("SCHEDULE_NOT_FOUND", { scheduleId: id, ended: found.state.status });
    return found;
  }

  async #unknown(id: string): Promise<AbstractRuntimeError> {
    const suggestion = nearest(id, (await this.#generations()).keys());
    return new AbstractRuntimeError("SCHEDULE_NOT_FOUND", {
      scheduleId: id,
      ...(suggestion === undefined || suggestion === id ? {} : { suggestion }),
    });
  }

  /**
   * The newest generation, 0 when there was none. Generations follow one another without a gap, those that were purged included: it is
   * found by doubling, then halving.
   */
  async #newest(id: string): Promise<{ generation: number } & Generation> {
    let newest: { generation: number } & Generation = { generation: 0 };
    const isThere = async (generation: number): Promise<boolean> => {
      const one = await this.#generation(id, generation);
      if (one) newest = { generation, ...one };
      return one !== undefined;
    };
    let missing = 1;
    while (await isThere(missing)) missing *= 2;
    while (missing - newest.generation > 1) {
      const middle = Math.floor((newest.generation + missing) / 2);
      if (!(await isThere(middle))) missing = middle;
    }
    return newest;
  }

  /** @throws RUN_EXISTS when its id was given to a run of another workflow. */
  async #generation(id: string, generation: number): Promise<Generation | undefined> {
    const runId = runIdOf(id, generation);
    const found = await this.#host.find(runId);
    if (!found) {
      const tombstone = await this.#host.store.tombstone(runId);
      return tombstone && { hasLeft: !isEnded(tombstone) };
    }
    const { state, loaded } = found;
    if (state.workflowId !== scheduleWorkflowId)
      throw new AbstractRuntimeError("RUN_EXISTS", { runId, problem: `workflow "${state.workflowId}", not as a schedule` });
    let { paused } = state;
    let deleted = state.status === "cancelled" || (state.cancelling !== undefined && !isEnded(state));
    // What was sent holds, whether or not a worker has been there to take it.
    for (const { kind, key } of isEnded(state) ? [] : loaded.mail) {
      if (kind !== "control") continue;
      if (key === "cancel") deleted = true;
      else if (key === "pause" || key === "unpause") paused = key === "pause";
    }
    return { found: { generation, state, loaded, vars: state.vars as unknown as ScheduleVars, paused, deleted } };
  }

  /** The newest generation of every schedule there ever was. */
  async #generations(): Promise<Map<string, number>> {
    const newest = new Map<string, number>();
    for await (const { runId } of runsOf(this.#host.store, { workflowId: scheduleWorkflowId })) {
      const [, id, generation = "1"] = /^schedule:([^~]+)(?:~(\d+))?$/s.exec(runId) ?? [];
      if (id !== undefined) newest.set(id, Math.max(newest.get(id) ?? 0, Number(generation)));
    }
    return newest;
  }

  async #view({ state, loaded, vars, paused }: Found): Promise<Schedule> {
    const { spec, nextAt, lastAt, lastRunId, lastError, from } = vars;
    const last = lastRunId === undefined ? undefined : await this.#host.store.load(lastRunId);
    const failure = state.status === "failed" ? state.error : lastError;
    const { blocked } = loaded;
    return {
      id: spec.id,
      spec: cloneJson(spec as unknown as JsonObject) as unknown as ScheduleSpec,
      status: isEnded(state) ? (state.status as "completed" | "failed") : "active",
      paused,
      nextAt: isEnded(state) ? null : nextAt === undefined ? (nextMoment(spec, from, from) ?? null) : nextAt,
      ...(lastAt === undefined ? {} : { lastAt }),
      ...(last && lastRunId !== undefined ? { lastRunId } : {}),
      running: last !== undefined && !isEnded(last.row),
      ...(failure
        ? { lastError: { ...(failure.code === undefined ? {} : { code: failure.code }), message: failure.message } }
        : {}),
      ...(blocked ? { blocked: { code: blocked.code, problem: blocked.problem } } : {}),
      runId: state.runId,
      createdAt: from,
    };
  }
}

/** Whether what was found is what a create with these differences means. A schedule that has ended makes room for another one. */
function stands({ state, deleted }: Found, different: readonly string[]): boolean {
  if (deleted || state.status === "failed") return false;
  return !isEnded(state) || different.length === 0;
}

function movedError({ row, moving }: Loaded): AbstractRuntimeError<"RUN_MOVED"> {
  const { to, phase } = moving as Moving;
  return new AbstractRuntimeError("RUN_MOVED", { runId: row.runId, to, phase });
}

function runIdOf(id: string, generation: number): string {
  return `schedule:${id}${generation === 1 ? "" : `~${generation}`}`;
}
