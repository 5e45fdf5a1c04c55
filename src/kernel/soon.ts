/** Which moments of a run its driver waits for in process, rather than parking it. Pure. */
import type { OpenEffect, RunState } from "./run.ts";
import { isDecided } from "./step.ts";

/** A backoff shorter than this is waited out; a longer one parks the run. */
const inProcessMs = 1_000;

export interface Timing {
  now: number;
  /** Until when a run that gathers the ends of its children stays for the next one. */
  lingersUntil: number;
  /** Effects that asked for a slot in vain: they are begun when there is one, and not at a moment. */
  lackSlots: ReadonlySet<string>;
}

/** The next moment that is worth staying for. */
export function soonest(state: RunState, timing: Timing): number | undefined {
  return earliest(state, (effect) => soonFor(state, effect, timing));
}

/** The next moment of any kind, for a run that stays anyway. */
export function nextMoment(state: RunState, timing: Timing): number | undefined {
  return earliest(state, (effect) => {
    const soon = soonFor(state, effect, timing);
    const { phase, retryAt, wait } = effect;
    const at = phase === "backing_off" ? retryAt : wait?.until;
    if (at === undefined || phase === "failed" || waitsForSlot(effect, timing) || isDecided(state, effect)) return soon;
    return soon === undefined ? at : Math.min(soon, at);
  });
}

function earliest({ open }: RunState, momentOf: (effect: OpenEffect) => number | undefined): number | undefined {
  let first: number | undefined;
  for (const effect of open.values()) {
    const at = momentOf(effect);
    if (at !== undefined && (first === undefined || at < first)) first = at;
  }
  return first;
}

function soonFor(state: RunState, effect: OpenEffect, timing: Timing): number | undefined {
  const { now, lingersUntil } = timing;
  if (effect.phase === "backing_off" && (effect.retryAt as number) - now < inProcessMs)
    return waitsForSlot(effect, timing) || isDecided(state, effect) ? undefined : effect.retryAt;
  // The ends of its children come close together: loading the state for each of them would cost more than staying.
  const gathers = effect.window !== undefined || effect.type === "join";
  return gathers && effect.phase !== "failed" && now < lingersUntil ? lingersUntil : undefined;
}

/** What is due and was not begun is begun when there is a slot. */
function waitsForSlot({ id }: OpenEffect, { lackSlots }: Timing): boolean {
  return lackSlots.has(id);
}
