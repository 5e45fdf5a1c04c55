/**
 * npm run scaling [-- --workers 10,100,1000] [--cores N] [--load 0.25,0.5]: what one Postgres primary carries, by simulation.
 *
 * Discrete events. A worker is one event loop that sends its commits in groups, one group at a time. The primary has so many cores
 * for its backends, which serve groups first come first served, and one log, whose syncs are shared by whoever waits for the next
 * one. Runs park after each step, as those of agents and approvals do, so that every step is woken, claimed, driven and parked.
 *
 * The costs are measured by `npm run bench -- costs`; the ones below are of the machine that docs/scaling.md names. What
 * the model leaves out: the network's bandwidth, vacuum, checkpoints of the server, and readers.
 */
import { parseArgs } from "node:util";

/** Milliseconds, on two cores with PostgreSQL 18. `networkMs` is assumed: that of one data centre. */
const costs = {
  /** Of a group, whatever is in it: parsing, planning, the transaction. On the server. */
  groupMs: 0.17,
  /** Of each transition in it, with its records. On the server. */
  transitionMs: 0.04,
  /** Of a look that finds nothing. On the server. */
  lookMs: 0.22,
  /** Of each run that a look claims and loads. On the server. */
  claimMs: 0.07,
  /** Until what was written is on the disk. */
  syncMs: 0.4,
  /** There and back. */
  networkMs: 0.3,
  /** Of a step, on the worker. */
  stepMs: 0.06,
};

const { values } = parseArgs({
  options: {
    workers: { type: "string", default: "10,100,1000" },
    cores: { type: "string", default: "8" },
    seconds: { type: "string", default: "20" },
    poll: { type: "string", default: "1000" },
    load: { type: "string", default: "0.25,0.5,0.75,0.9" },
  },
});

interface Outcome {
  stepsPerSecond: number;
  p50: number;
  p99: number;
  busy: number;
  looks: number;
}

/** Events, the next one last. */
class Calendar {
  now = 0;
  readonly #events: { at: number; act: () => void }[] = [];

  at(at: number, act: () => void): void {
    let [low, high] = [0, this.#events.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#events[middle]?.at ?? 0) > at) low = middle + 1;
      else high = middle;
    }
    this.#events.splice(low, 0, { at, act });
  }

  run(untilMs: number): void {
    for (let next = this.#events.pop(); next && next.at <= untilMs; next = this.#events.pop()) {
      this.now = next.at;
      next.act();
    }
  }
}

/** The server: `cores` at a time, then the log. */
class Primary {
  busyMs = 0;
  readonly #calendar: Calendar;
  readonly #cores: number;
  readonly #queue: { ms: number; writes: boolean; done: () => void }[] = [];
  #running = 0;
  #waiting: (() => void)[] = [];
  #syncing = false;

  constructor(calendar: Calendar, cores: number) {
    this.#calendar = calendar;
    this.#cores = cores;
  }

  serve(ms: number, writes: boolean, done: () => void): void {
    this.#queue.push({ ms, writes, done });
    this.#next();
  }

  #next(): void {
    while (this.#running < this.#cores) {
      const next = this.#queue.shift();
      if (!next) return;
      const { ms, writes, done } = next;
      this.#running += 1;
      this.busyMs += ms;
      this.#calendar.at(this.#calendar.now + ms, () => {
        this.#running -= 1;
        if (writes) this.#sync(done);
        else done();
        this.#next();
      });
    }
  }

  /** Whoever comes while the disk is busy shares the next sync. */
  #sync(done: () => void): void {
    this.#waiting.push(done);
    if (this.#syncing) return;
    this.#syncing = true;
    const round = (): void => {
      const served = this.#waiting;
      this.#waiting = [];
      this.#calendar.at(this.#calendar.now + costs.syncMs, () => {
        for (const one of served) one();
        if (this.#waiting.length > 0) round();
        else this.#syncing = false;
      });
    };
    round();
  }
}

/** Steps become due at `perSecond`, anywhere in the store; each is claimed by some worker, driven, and committed with its parking. */
function simulate(workers: number, perSecond: number, cores: number, seconds: number, pollMs: number): Outcome {
  const calendar = new Calendar();
  const primary = new Primary(calendar, cores);
  let seed = 1;
  const random = (): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const warmMs = 2_000;
  const due: number[] = [];
  const latencies: number[] = [];
  let looks = 0;

  class Worker {
    #looking = false;
    #lookAgain = false;
    #sending = false;
    #ready: number[] = [];
    #freeAt = 0;

    constructor() {
      const poll = (): void => {
        this.look();
        calendar.at(calendar.now + pollMs * (0.75 + random() / 2), poll);
      };
      calendar.at(random() * pollMs, poll);
    }

    /** Asks for what is due. */
    look(): void {
      if (this.#looking) {
        this.#lookAgain = true;
        return;
      }
      this.#looking = true;
      looks += 1;
      const found = due.splice(0, 50);
      primary.serve(costs.lookMs + costs.claimMs * found.length, found.length > 0, () =>
        calendar.at(calendar.now + costs.networkMs, () => {
          this.#looking = false;
          for (const since of found) this.#drive(since);
          if (found.length === 50 || (this.#lookAgain && due.length > 0)) this.look();
          this.#lookAgain = false;
        }),
      );
    }

    #drive(since: number): void {
      this.#freeAt = Math.max(this.#freeAt, calendar.now) + costs.stepMs;
      calendar.at(this.#freeAt, () => {
        this.#ready.push(since);
        this.#send();
      });
    }

    #send(): void {
      if (this.#sending || this.#ready.length === 0) return;
      this.#sending = true;
      const group = this.#ready;
      this.#ready = [];
      primary.serve(costs.groupMs + costs.transitionMs * group.length, true, () =>
        calendar.at(calendar.now + costs.networkMs, () => {
          this.#sending = false;
          if (calendar.now > warmMs) for (const since of group) latencies.push(calendar.now - since);
          this.#send();
        }),
      );
    }
  }

  const all = Array.from({ length: workers }, () => new Worker());
  // As in stores/postgres/bell.ts: all workers hear that a run is due, each looks at a moment of its own in a span that grows with their
  // number, and nobody rings before that is over.
  const spanMs = Math.min(1_000, 4 * Math.max(0, workers - 2));
  let rungAt = Number.NEGATIVE_INFINITY;
  const ring = (): void => {
    if (calendar.now < rungAt + spanMs) return;
    rungAt = calendar.now;
    for (const worker of all) calendar.at(calendar.now + costs.networkMs / 2 + random() * spanMs, () => worker.look());
  };
  const arrive = (): void => {
    due.push(calendar.now);
    ring();
    calendar.at(calendar.now - (Math.log(1 - random()) / perSecond) * 1_000, arrive);
  };
  arrive();
  calendar.run(warmMs + seconds * 1_000);
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.floor(latencies.length * share)] ?? Number.NaN;
  return {
    stepsPerSecond: latencies.length / seconds,
    p50: at(0.5),
    p99: at(0.99),
    busy: primary.busyMs / (calendar.now * cores),
    looks: looks / (calendar.now / 1_000),
  };
}

const [cores, seconds, pollMs] = [values.cores, values.seconds, values.poll].map(Number) as [number, number, number];
/** What the cores could do if nothing but the steps themselves cost them anything. */
const most = (cores * 1_000) / (costs.transitionMs + costs.claimMs);
console.log(
  `${cores} cores for the server's backends, which could do ${most.toFixed(0)} steps a second if nothing else cost them anything\n`,
);
const widths = [7, 8, 8, 8, 8, 12];
console.log("workers  asked/s  steps/s   p50 ms   p99 ms  server busy  looks/s");
for (const workers of values.workers.split(",").map(Number))
  for (const load of values.load.split(",").map(Number)) {
    const asked = load * most;
    const { stepsPerSecond, p50, p99, busy, looks } = simulate(workers, asked, cores, seconds, pollMs);
    const cells = [workers, asked.toFixed(0), stepsPerSecond.toFixed(0), p50.toFixed(1), p99.toFixed(1)];
    const line = [...cells, `${(busy * 100).toFixed(0)} %`, looks.toFixed(0)].map((cell, i) =>
      String(cell).padStart(widths[i] ?? 8),
    );
    console.log(line.join(" "));
  }
