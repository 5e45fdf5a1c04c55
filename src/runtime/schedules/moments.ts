/**
 * When a schedule fires. Pure: the same specification gives the same moments in every process, so none of them has to be stored.
 *
 * M1. `nextMoment(s, t)` lies after `t`, and never falls as `t` rises.
 */
import { Cron } from "croner";
import { readMoment } from "../../kernel/moment.ts";

/** The part of a schedule that says when. */
export interface Timetable {
  cron?: string;
  /** Of `cron`. */
  timezone?: string;
  everyMs?: number;
  /** First and last moment at which it may fire, in milliseconds since 1970. */
  startAt?: number;
  endAt?: number;
}

/** The first moment after `after`, or undefined when none comes. @param from When the schedule was made: it never fires at or before that. */
export function nextMoment(timetable: Timetable, from: number, after: number): number | undefined {
  const { cron, timezone, everyMs, startAt, endAt = Number.POSITIVE_INFINITY } = timetable;
  // A moment may fall on startAt itself.
  const behind = Math.max(after, from, startAt === undefined ? after : startAt - 1);
  const at =
    everyMs === undefined ? cronAfter(cron as string, timezone as string, behind) : stepAfter(startAt ?? from, everyMs, behind);
  return at === undefined || at > endAt || typeof readMoment(at) === "string" ? undefined : at;
}

/** The last moment up to `upTo`, given one that is not later. By halving: a year of seconds is searched as fast as a day of hours (M1). */
export function latestMoment(timetable: Timetable, from: number, known: number, upTo: number): number {
  let latest = known;
  for (let end = upTo; latest < end; ) {
    const middle = Math.floor((latest + end) / 2);
    const next = nextMoment(timetable, from, middle);
    if (next !== undefined && next <= upTo) latest = next;
    else end = middle;
  }
  return latest;
}

/** @throws What croner makes of an expression that it does not read. */
export function readCron(cron: string, timezone: string): Cron {
  return new Cron(cron, { timezone, mode: "5-or-6-parts" });
}

function cronAfter(cron: string, timezone: string, after: number): number | undefined {
  return readCron(cron, timezone).nextRun(new Date(after))?.getTime();
}

function stepAfter(anchor: number, everyMs: number, after: number): number {
  return anchor + (Math.floor((after - anchor) / everyMs) + 1) * everyMs;
}
