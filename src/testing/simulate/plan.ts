/**
 * What goes wrong in one seed, as a list of small data objects made before anything runs: a failing list can be printed, given back,
 * and made smaller.
 */
import { randomOf, type SimulationRandom } from "./random.ts";

/**
 * One thing that goes wrong. Workers count from 0 and keep their number when they come back after a crash; `"client"` is the process
 * from which runs are started, answered and signalled. `call` counts the store calls of a worker, from 1, over its crashes; `at` is in
 * milliseconds from the beginning; `run` counts the runs in the order of their creation, children included, from 0; `message` counts
 * the messages of the outside world, from 0.
 */
export type SimulatedFault =
  /** The process dies as it makes this call, or when the store has carried it out. Another one comes after `restartMs`. */
  | { fault: "crash-before" | "crash-after"; worker: number; call: number; restartMs: number }
  /** The call fails before, or though, it was carried out. */
  | { fault: "fail-before" | "fail-after"; worker: Place; call: number }
  /** The call is carried out twice, as by a store that asks its server again. Only calls that change runs. */
  | { fault: "repeat-call"; worker: Place; call: number }
  /** The call, or its answer, takes this long; calls for the same run wait behind it. */
  | { fault: "delay-request" | "delay-answer"; worker: Place; call: number; ms: number }
  /** The process stands still from when the store has carried out this call: its answer comes after `ms`, as all that it would do. */
  | { fault: "freeze-after"; worker: number; call: number; ms: number }
  /** Nothing of the process runs: its timers do not fire, and answers reach it afterwards. */
  | { fault: "freeze"; worker: number; at: number; ms: number }
  /** The wall clock of the process jumps, forward or (below 0) back. */
  | { fault: "clock-jump"; worker: number; at: number; ms: number }
  /** All calls fail. */
  | { fault: "store-down"; at: number; ms: number }
  | { fault: "cancel"; run: number; at: number }
  /** Tried again `ms` after it has failed for the first time. */
  | { fault: "retry"; run: number; ms: number }
  /** Unpaused after `ms`. */
  | { fault: "pause"; run: number; at: number; ms: number }
  /** The older part of its ledger is archived. */
  | { fault: "archive"; run: number; at: number }
  /** The same start, with the same id, once more. */
  | { fault: "start-again"; run: number; at: number }
  /** The same message, with the same id, once more after `ms`. */
  | { fault: "repeat-message"; message: number; ms: number }
  /** The message comes `ms` later than it would have; where its wait has a deadline, perhaps after that. */
  | { fault: "late-message"; message: number; ms: number }
  /** When this event is sent, the same one goes to the other runs of the workflow too, whether they wait for it or not. */
  | { fault: "early-event"; message: number };

export type Place = number | "client";

/** How many faults of a kind there are in a seed, on average: a number, `true` for the default, `false` for none. */
export interface FaultRates {
  /** Processes that die. Default: 1.2. */
  crash?: number | boolean;
  /** Single store calls that fail or are made twice, and acknowledgements that are lost. Default: 1.5. */
  fail?: number | boolean;
  /** Slow store calls. Default: 1.5. */
  delay?: number | boolean;
  /** Processes that stand still, many for longer than their lease. Default: 0.6. */
  freeze?: number | boolean;
  /** Jumps of a worker's wall clock. Default: 0.4. */
  clock?: number | boolean;
  /** Times at which the store does not answer. Default: 0.2. */
  down?: number | boolean;
  /** Cancels, pauses and unpauses, and retries of runs that failed. Default: 1. */
  control?: number | boolean;
  /** Older parts of ledgers that are archived while their runs go on. Default: 0.3. */
  archive?: number | boolean;
  /** Late, repeated and early messages, and repeated starts. Default: 1.5. */
  messages?: number | boolean;
}

export const defaultRates: Required<Record<keyof FaultRates, number>> = {
  crash: 1.2,
  fail: 1.5,
  delay: 1.5,
  freeze: 0.6,
  clock: 0.4,
  down: 0.2,
  control: 1,
  archive: 0.3,
  messages: 1.5,
};

export interface PlanOptions {
  workers: number;
  runs: number;
  leaseMs: number;
  /** When the last timed fault has begun, in milliseconds from the beginning. */
  untilMs: number;
  rates: FaultRates;
}

/** The schedule of a seed. */
export function planFaults(seed: number, { workers, runs, leaseMs, untilMs, rates }: PlanOptions): SimulatedFault[] {
  const schedule: SimulatedFault[] = [];
  const add = (kind: keyof FaultRates, make: (random: SimulationRandom) => SimulatedFault): void => {
    const random = randomOf(seed, "fault", kind);
    const rate = rates[kind];
    const count = countOf(random, rate === undefined || rate === true ? defaultRates[kind] : rate === false ? 0 : rate);
    for (let i = 0; i < count; i++) schedule.push(make(random));
  };
  const call = (random: SimulationRandom): number => 1 + Math.floor(random.next() ** 1.5 * 60);
  // Most runs are short: early moments hit more.
  const at = (random: SimulationRandom): number => Math.floor(random.next() ** 2 * untilMs);
  const worker = (random: SimulationRandom): number => random.int(0, workers - 1);
  const place = (random: SimulationRandom): Place => (random.chance(0.25) ? "client" : worker(random));
  const long = (random: SimulationRandom): number => Math.floor(leaseMs * (0.2 + 2.3 * random.next() ** 2));

  add("crash", (random) => ({
    fault: random.pick(["crash-before", "crash-after"] as const),
    worker: worker(random),
    call: call(random),
    restartMs: random.pick([0, 100, 3_000, leaseMs + 1_000]),
  }));
  add("fail", (random) => ({
    fault: random.pick(["fail-before", "fail-after", "repeat-call"] as const),
    worker: place(random),
    call: call(random),
  }));
  add("delay", (random) => ({
    fault: random.pick(["delay-request", "delay-answer"] as const),
    worker: place(random),
    call: call(random),
    ms: random.chance(0.5) ? random.int(1, 500) : long(random),
  }));
  add("freeze", (random) =>
    random.chance(0.5)
      ? { fault: "freeze", worker: worker(random), at: at(random), ms: long(random) }
      : { fault: "freeze-after", worker: worker(random), call: call(random), ms: long(random) },
  );
  add("clock", (random) => ({
    fault: "clock-jump",
    worker: worker(random),
    at: at(random),
    ms: (random.chance(0.5) ? -1 : 1) * random.pick([50, 2_000, leaseMs, 3_600_000]),
  }));
  add("down", (random) => ({ fault: "store-down", at: at(random), ms: random.pick([500, leaseMs, 30_000]) }));
  add("control", (random) => {
    // Beyond the runs that are started there may be children.
    const run = random.int(0, runs + 2);
    switch (random.int(0, 3)) {
      case 0:
        return { fault: "cancel", run, at: at(random) };
      case 1:
        return { fault: "pause", run, at: at(random), ms: random.pick([0, 1_000, 20_000]) };
      default:
        return { fault: "retry", run, ms: random.pick([0, 0, 20, 1_000, 20_000]) };
    }
  });
  add("archive", (random) => ({ fault: "archive", run: random.int(0, runs + 2), at: at(random) }));
  add("messages", (random) => {
    const message = random.int(0, 5);
    switch (random.int(0, 3)) {
      case 0:
        return { fault: "start-again", run: random.int(0, runs - 1), at: at(random) };
      case 1:
        return { fault: "repeat-message", message, ms: random.pick([0, 10, 5_000]) };
      case 2:
        return { fault: "late-message", message, ms: random.pick([1_000, 30_000, 120_000]) };
      default:
        return { fault: "early-event", message };
    }
  });
  return schedule;
}

/** A whole number around `mean`: sometimes none, sometimes several. */
function countOf(random: SimulationRandom, mean: number): number {
  let count = 0;
  // A geometric distribution: quiet seeds and wild ones.
  while (count < 20 && random.chance(mean / (1 + mean))) count += 1;
  return count;
}

/** A fault as a sentence. */
export function describeFault(fault: SimulatedFault): string {
  switch (fault.fault) {
    case "crash-before":
    case "crash-after":
      return `${who(fault.worker)} dies ${fault.fault === "crash-before" ? "before" : "after"} its store call ${fault.call} is carried out; another comes ${fault.restartMs} ms later`;
    case "fail-before":
      return `store call ${fault.call} of ${who(fault.worker)} fails and is not carried out`;
    case "fail-after":
      return `store call ${fault.call} of ${who(fault.worker)} is carried out and its acknowledgement is lost`;
    case "repeat-call":
      return `store call ${fault.call} of ${who(fault.worker)} is carried out twice`;
    case "delay-request":
      return `store call ${fault.call} of ${who(fault.worker)} reaches the store ${fault.ms} ms late`;
    case "delay-answer":
      return `the answer to store call ${fault.call} of ${who(fault.worker)} comes ${fault.ms} ms late`;
    case "freeze-after":
      return `${who(fault.worker)} stands still after its store call ${fault.call} is carried out, for ${fault.ms} ms`;
    case "freeze":
      return `${who(fault.worker)} stands still from ${fault.at} ms for ${fault.ms} ms`;
    case "clock-jump":
      return `the clock of ${who(fault.worker)} jumps ${fault.ms < 0 ? "back" : "forward"} by ${Math.abs(fault.ms)} ms at ${fault.at} ms`;
    case "store-down":
      return `the store is down from ${fault.at} ms for ${fault.ms} ms`;
    case "cancel":
      return `run ${fault.run} is cancelled at ${fault.at} ms`;
    case "retry":
      return `run ${fault.run} is tried again ${fault.ms} ms after it has failed`;
    case "pause":
      return `run ${fault.run} is paused at ${fault.at} ms, and unpaused ${fault.ms} ms later`;
    case "archive":
      return `the older part of the ledger of run ${fault.run} is archived at ${fault.at} ms`;
    case "start-again":
      return `run ${fault.run} is started once more at ${fault.at} ms`;
    case "repeat-message":
      return `message ${fault.message} is sent once more ${fault.ms} ms after the first time`;
    case "late-message":
      return `message ${fault.message} is sent ${fault.ms} ms late`;
    case "early-event":
      return `message ${fault.message}, when an event, goes to the other runs as well`;
  }
}

function who(worker: Place): string {
  return worker === "client" ? "the client" : `worker ${worker}`;
}
