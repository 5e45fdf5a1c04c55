/** What `schedules.create` is given, read once at the door. */
import { AbstractRuntimeError, checkOptions, invalidOption } from "../../kernel/errors.ts";
import { nearest } from "../../kernel/nearest.ts";
import { equalJson, isObject, type Json, type JsonObject, toJson } from "../../kernel/json.ts";
import { readMoment } from "../../kernel/moment.ts";
import { checkResultKey } from "../../kernel/patch.ts";
import { readBudget, type Spend } from "../../kernel/spend.ts";
import type { Anything } from "../../kernel/typing.ts";
import type { Workflow } from "../../kernel/workflow.ts";
import { nextMoment, readCron, type Timetable } from "./moments.ts";
import { catchUps, overlaps, type ScheduleSpec } from "./workflow.ts";

/** A schedule to make. Exactly one of `cron` and `everyMs`. */
export type ScheduleOptions<Input = Anything> = ScheduleTiming & {
  /** 1 to 120 characters, without `~`. */
  id: string;
  /** The workflow to start runs of, or its id; one that this runtime has. */
  workflow: string | Workflow<Anything, Anything, Input>;
  /** What to do when a moment comes while the run before has not ended. Default: `"skip"`. */
  overlap?: (typeof overlaps)[number];
  /** What to do about moments that were missed because nothing was running. Default: `"latest"`. */
  catchUp?: (typeof catchUps)[number];
  /** Nothing fires before it: a Date, ISO text or milliseconds since 1970. With `everyMs` it is the first moment. Default: when it is created. */
  startAt?: Date | string | number;
  /** Nothing fires after it, and the schedule ends. Default: never. */
  endAt?: Date | string | number;
  /** What each run may spend. Default: no limits. */
  budget?: Spend;
} & ScheduledVars<NoInfer<Input>>;

type ScheduleTiming =
  | {
      /** Five fields, or six with seconds first, as croner reads them. */
      cron: string;
      /** An IANA name: the clock that `cron` means. Default: `"UTC"`. */
      timezone?: string;
      everyMs?: undefined;
    }
  | {
      /** Milliseconds between two moments, from 1,000. */
      everyMs: number;
      cron?: undefined;
      timezone?: undefined;
    };

type ScheduledVars<Input> =
  | {
      /** What each run is started with. Default: `{}`. */
      vars?: Input;
      momentKey?: undefined;
    }
  | {
      /** A dotted path in the run's vars that gets the moment it was started for, as ISO text in UTC. Default: none. */
      momentKey: string;
      /** Without what `momentKey` gets. */
      vars?: Partial<Input>;
    };

const leastEveryMs = 1_000;
const mostEveryMs = 10 * 365 * 86_400_000;
const longestId = 120;

const optionNames = [
  "id",
  "cron",
  "timezone",
  "everyMs",
  "workflow",
  "vars",
  "momentKey",
  "overlap",
  "catchUp",
  "startAt",
  "endAt",
  "budget",
];

/** @throws INVALID_OPTION for an unknown option, SCHEDULE_INVALID, NOT_JSON, JSON_TOO_DEEP */
export function readSpec(options: ScheduleOptions, workflowId: string): ScheduleSpec {
  const { id, vars = {}, momentKey, overlap = "skip", catchUp = "latest" } = options;
  const invalid = refuser(id);
  const startAt = moment(options.startAt, "startAt", invalid);
  const endAt = moment(options.endAt, "endAt", invalid);
  if (startAt !== undefined && endAt !== undefined && endAt < startAt) invalid("endAt", "endAt lies before startAt");
  if (momentKey !== undefined) checkMomentKey(momentKey, invalid);
  const budget = readBudget(options.budget, "schedules.create()");
  const given = toJson(vars, "vars");
  if (!isObject(given)) throw new AbstractRuntimeError("NOT_JSON", { path: "vars", problem: "the vars of a run are an object" });
  return {
    id,
    ...timetable(options, invalid),
    workflowId,
    vars: given as JsonObject,
    ...(momentKey === undefined ? {} : { momentKey }),
    overlap: oneOf(overlaps, overlap, "overlap", invalid),
    catchUp: oneOf(catchUps, catchUp, "catchUp", invalid),
    ...(startAt === undefined ? {} : { startAt }),
    ...(endAt === undefined ? {} : { endAt }),
    ...(budget === undefined ? {} : { budget }),
  };
}

/** What must be right before anything can be said about the rest. */
export function checkScheduleOptions(options: unknown): asserts options is ScheduleOptions {
  if (typeof options !== "object" || options === null)
    throw invalidOption("options", "schedules.create() needs { id, cron or everyMs, workflow }");
  checkOptions(options, optionNames, "schedules.create()");
  checkScheduleId((options as ScheduleOptions).id);
}

/** @throws SCHEDULE_INVALID */
export function checkScheduleId(id: unknown): asserts id is string {
  const invalid = refuser(id);
  if (typeof id !== "string" || id === "") return invalid("id", "its id is not text, or empty");
  if (id.length > longestId) return invalid("id", `its id has ${id.length} characters, more than ${longestId}`);
  // The sign that parts an id from the number of its generation.
  if (id.includes("~")) return invalid("id", 'its id has a "~"');
  if (!id.isWellFormed()) invalid("id", "its id has half of a surrogate pair, which is not text");
}

/** @throws SCHEDULE_INVALID when it would never fire. */
export function checkFires(spec: ScheduleSpec, from: number): void {
  if (nextMoment(spec, from, from) !== undefined) return;
  const option = spec.endAt === undefined ? "cron" : "endAt";
  refuser(spec.id)(option, option === "cron" ? `cron "${spec.cron}" never comes` : "no moment comes before endAt");
}

/** The names of the members in which two specifications differ. */
export function differences(a: ScheduleSpec, b: ScheduleSpec): string[] {
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].filter(
    (name) => !equalJson(a[name as keyof ScheduleSpec] as Json, b[name as keyof ScheduleSpec] as Json),
  );
}

type Invalid = (option: string, problem: string, suggestion?: string) => never;

function refuser(id: unknown): Invalid {
  return (option, problem, suggestion) => {
    const scheduleId = typeof id === "string" ? id.slice(0, longestId) : String(id);
    throw new AbstractRuntimeError("SCHEDULE_INVALID", { scheduleId, option, problem, ...(suggestion ? { suggestion } : {}) });
  };
}

function timetable({ cron, timezone, everyMs }: ScheduleOptions, invalid: Invalid): Timetable {
  if ((cron === undefined) === (everyMs === undefined)) return invalid("cron", "it needs cron or everyMs, and not both");
  if (everyMs !== undefined) {
    if (timezone !== undefined) return invalid("timezone", "timezone is for cron; everyMs counts milliseconds anywhere");
    if (!Number.isInteger(everyMs) || everyMs < leastEveryMs || everyMs > mostEveryMs)
      return invalid(
        "everyMs",
        `everyMs is ${String(everyMs)}, not a whole number of milliseconds from ${leastEveryMs} to 10 years`,
      );
    return { everyMs };
  }
  const zone = checkTimezone(timezone, invalid);
  if (typeof cron !== "string") return invalid("cron", "cron is not text");
  const text = cron.trim().replaceAll(/\s+/g, " ");
  const fields = text.split(" ").length;
  if (fields !== 5 && fields !== 6)
    return invalid(
      "cron",
      `cron "${shown(text)}" has ${text === "" ? 0 : fields} fields, not 5 or 6`,
      nicknames[text.toLowerCase()],
    );
  try {
    readCron(text, zone);
  } catch (error) {
    const why = error instanceof Error ? error.message.replace(/^CronPattern: /, "").replace(/\.$/, "") : String(error);
    return invalid("cron", `cron "${shown(text)}" cannot be read: ${why}`);
  }
  return { cron: text, timezone: zone };
}

const nicknames: Record<string, string> = {
  "@hourly": "0 * * * *",
  "@daily": "0 0 * * *",
  "@midnight": "0 0 * * *",
  "@weekly": "0 0 * * 0",
  "@monthly": "0 0 1 * *",
  "@yearly": "0 0 1 1 *",
  "@annually": "0 0 1 1 *",
};

function checkTimezone(timezone: unknown, invalid: Invalid): string {
  if (timezone === undefined) return "UTC";
  if (typeof timezone !== "string") return invalid("timezone", "timezone is not text");
  try {
    // Offsets are no time zones: they do not know of summer.
    if (!/^[+-]/.test(timezone)) {
      new Intl.DateTimeFormat("en", { timeZone: timezone });
      return timezone;
    }
  } catch {
    // Refused below, with what may have been meant.
  }
  const suggestion = nearest(timezone, Intl.supportedValuesOf("timeZone"));
  return invalid("timezone", `timezone "${shown(timezone)}" is not an IANA time zone, such as "Europe/Berlin"`, suggestion);
}

function checkMomentKey(key: unknown, invalid: Invalid): void {
  if (typeof key !== "string" || key === "" || key.length > 200)
    return invalid("momentKey", "momentKey is not text of 1 to 200 characters");
  try {
    checkResultKey(key);
  } catch {
    invalid("momentKey", `momentKey "${shown(key)}" would reach a prototype`);
  }
}

function moment(given: Date | string | number | undefined, option: string, invalid: Invalid): number | undefined {
  if (given === undefined) return undefined;
  const at = readMoment(given);
  return typeof at === "number" ? at : invalid(option, `${option}: ${at}`);
}

function oneOf<T extends string>(known: readonly T[], given: unknown, option: string, invalid: Invalid): T {
  const found = known.find((name) => name === given);
  if (found !== undefined) return found;
  const text = String(given);
  return invalid(
    option,
    `${option} is ${known.map((name) => `"${name}"`).join(", ")}, not "${shown(text)}"`,
    nearest(text, known),
  );
}

function shown(text: string): string {
  return text.length > 64 ? `${text.slice(0, 64)}...` : text;
}
