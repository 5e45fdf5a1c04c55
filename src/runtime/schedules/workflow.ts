/**
 * A schedule is a run of this workflow: it waits for a moment, starts a child, and waits for the next. Nothing else is needed for
 * "exactly once over any number of processes": only the holder of the run's lease commits to it, the child begins in the commit that
 * records its start, and its id is derived from that record's place in the run.
 *
 * W1. Each moment is decided on once: it starts one run, or is dropped as the schedule says.
 * W2. Whatever becomes of a run that was started, the schedule goes on.
 * W3. The vars do not grow: what is owed follows from the moment waited for and the specification.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { ErrorData } from "../../kernel/errors.ts";
import { isObject, type JsonObject } from "../../kernel/json.ts";
import { setAt } from "../../kernel/patch.ts";
import { complete } from "../../kernel/plan.ts";
import { join, subworkflow } from "../../kernel/child-plans.ts";
import { waitUntil } from "../../kernel/wait-plans.ts";
import { childId } from "../../kernel/child-id.ts";
import type { Spend } from "../../kernel/spend.ts";
import { defineWorkflow } from "../../kernel/workflow.ts";
import { latestMoment, nextMoment, type Timetable } from "./moments.ts";

export const scheduleWorkflowId = "abstractruntime.schedule";

/** Woken later than this after a moment, the schedule has missed it. Below it, a process was busy or restarting. */
export const toleranceMs = 60_000;

export const overlaps = ["skip", "queue", "allow"] as const;
export const catchUps = ["latest", "none", "all"] as const;

/** A schedule, checked, with its defaults filled in. */
export interface ScheduleSpec extends Timetable {
  id: string;
  workflowId: string;
  vars: JsonObject;
  momentKey?: string;
  overlap: (typeof overlaps)[number];
  catchUp: (typeof catchUps)[number];
  budget?: Spend;
}

export interface ScheduleVars {
  spec: ScheduleSpec;
  /** When it was made. Moments come after it. */
  from: number;
  /** The moment waited for. Null while a run is awaited, and after the last. */
  nextAt?: number | null;
  /** The moment that was last fired for, and the run that it started. */
  lastAt?: number;
  lastRunId?: string;
  /** Why the last run failed, or could not be started. */
  lastError?: Pick<ErrorData, "code" | "message">;
  /** `catchUp` is `"all"`: moments up to this one were missed, and are owed a run each, whatever `overlap` says. */
  owedTo?: number;
  /** The end of the run that the moment waited for had to wait for. It is on time when it is fired then. */
  freeAt?: number;
}

/** `schedules.create` checks far more; this refuses a start by hand, whose run nobody could show as a schedule. */
const scheduleVars: StandardSchemaV1<ScheduleVars, ScheduleVars> = {
  "~standard": {
    version: 1,
    vendor: "abstractruntime",
    validate: (value) =>
      isObject(value) && isObject(value.spec) && typeof value.from === "number"
        ? { value: value as unknown as ScheduleVars }
        : { issues: [{ message: "a schedule is made with runtime.schedules.create()" }] },
  },
};

export const scheduleWorkflow = defineWorkflow({
  id: scheduleWorkflowId,
  title: "Schedule",
  vars: scheduleVars,
  entry: "plan",
  nodes: {
    plan: { to: ["wake"], run: ({ vars }) => waitFor(vars, after(vars, vars.from)) },
    wake: {
      to: ["wake", "ended", "rest", "failed"],
      run: ({ vars, now, runId, step }) => {
        const moment = toFire(vars, now);
        if (moment === undefined) return waitFor(vars, after(vars, now));
        vars.nextAt = null;
        vars.lastAt = moment;
        // The child's own result may be large, and is not needed: its id is known beforehand.
        vars.lastRunId = childId(runId, String(step));
        const { spec } = vars;
        // Detached in any case: a cancel of the schedule is not one of its runs.
        const child = { vars: varsAt(spec, moment), detached: true, ...(spec.budget ? { budget: spec.budget } : {}) };
        return subworkflow(spec.workflowId, child, {
          nextNode: spec.overlap === "allow" ? "rest" : "ended",
          errorNode: "failed",
        });
      },
    },
    ended: {
      to: ["rest", "failed"],
      run: ({ vars }) => join(vars.lastRunId as string, { nextNode: "rest", errorNode: "failed" }),
    },
    rest: {
      to: ["wake"],
      run: ({ vars, now }) => {
        delete vars.lastError;
        return goOn(vars, now);
      },
    },
    failed: {
      to: ["wake"],
      run: ({ vars, now, error }) => {
        const { code, message = "the run failed" } = error ?? {};
        vars.lastError = { ...(code === undefined ? {} : { code }), message: message.slice(0, 500) };
        return goOn(vars, now);
      },
    },
  },
});

/** What a run started for `moment` is given. */
export function varsAt({ vars, momentKey }: ScheduleSpec, moment: number): JsonObject {
  return momentKey === undefined ? vars : setAt(vars, momentKey, new Date(moment).toISOString());
}

/** The moment to start a run for, or undefined when everything up to now is dropped. */
function toFire(vars: ScheduleVars, now: number): number | undefined {
  const { spec, from, freeAt = 0 } = vars;
  const nominal = vars.nextAt as number;
  if (now - Math.max(nominal, freeAt) <= toleranceMs) return nominal;
  switch (spec.catchUp) {
    case "none":
      return undefined;
    case "latest":
      return latestMoment(spec, from, nominal, now);
    case "all":
      vars.owedTo = now;
      return nominal;
  }
}

/** A run was started and, unless they may overlap, has ended. */
function goOn(vars: ScheduleVars, now: number) {
  const { spec, owedTo = 0 } = vars;
  const last = vars.lastAt as number;
  const next = after(vars, last);
  const isOwed = next !== undefined && next <= owedTo;
  if (isOwed || spec.overlap === "queue") vars.freeAt = now;
  return waitFor(vars, isOwed || spec.overlap !== "skip" ? next : after(vars, Math.max(last, now)));
}

function waitFor(vars: ScheduleVars, moment = Number.POSITIVE_INFINITY) {
  if ((vars.owedTo ?? 0) < moment) delete vars.owedTo;
  if ((vars.freeAt ?? 0) < moment) delete vars.freeAt;
  vars.nextAt = Number.isFinite(moment) ? moment : null;
  return vars.nextAt === null ? complete() : waitUntil(moment, { nextNode: "wake" });
}

function after({ spec, from }: ScheduleVars, moment: number): number | undefined {
  return nextMoment(spec, from, moment);
}
