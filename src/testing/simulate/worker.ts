/**
 * One place for a process: a runtime over a store whose calls pass through the fault plan. After a crash another process takes the
 * place, with the same number; its calls are counted on.
 */
import { type AnyEffect, createRuntime, type Runtime, type Workflow } from "../../index.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { Mail } from "../../kernel/message.ts";
import type { QueueLimits } from "../../kernel/transition.ts";
import type { Store } from "../../kernel/store.ts";
import { testIds } from "../ids.ts";
import { type StoreMethod, wrapStore } from "../wrap-store.ts";
import type { Calls, Handler } from "./calls.ts";
import { SimulatedProcess, type VirtualTime } from "./clock.ts";
import type { Observer } from "./observer.ts";
import type { Place, SimulatedFault } from "./plan.ts";
import { randomOf, seedOf } from "./random.ts";
import { Violation } from "./violation.ts";

/** What is simulated. */
export interface SimulatedCode {
  workflows: readonly Workflow[];
  /** Effects for all workflows, as in `createRuntime`. */
  effects?: readonly AnyEffect[];
  /** As in `createRuntime`. */
  queues?: Readonly<Record<string, QueueLimits>>;
  /** What replaces it at some moment of a seed, process by process: the next version of the same workflows. */
  next?: SimulatedCode;
}

/** What all processes of a seed share. */
export interface Surroundings {
  seed: number;
  time: VirtualTime;
  observer: Observer;
  calls: Calls;
  /** What a process that starts now runs. */
  code(): SimulatedCode;
  handlers: Readonly<Record<string, Handler>>;
  scheduler: { pollMs: number; leaseMs: number; concurrency: number };
  /** Longest time that an ordinary call, or its answer, takes: 0 keeps calls of one turn together. */
  latencyMs: number;
  schedule: readonly SimulatedFault[];
  /** As in `Store`. */
  blobs: Store["blobs"];
  hear(heard: () => void): () => void;
  /** Whether faults strike: not any more once the world is calm. */
  faulty(): boolean;
  storeIsDown(): boolean;
  trace(line: string): void;
  violated(violation: Violation): void;
}

type CallFault = Extract<SimulatedFault, { call: number }>;
const never = new Promise<never>(() => undefined);
/** What is safe to call twice, and changes runs. */
const repeatable: readonly StoreMethod[] = ["create", "commit", "deliver", "release"];
/** A start that failed is tried again after this. */
const againMs = 1_000;

export class Worker {
  readonly place: Place;
  readonly name: string;
  readonly #around: Surroundings;
  readonly #faults = new Map<number, CallFault[]>();
  #process: SimulatedProcess;
  #runtime: Runtime | undefined;
  #incarnation = 0;
  #calls = 0;
  /** When the last call for each run reaches the store: order is kept (S3). */
  readonly #arrivals = new Map<string, number>();
  #arriving = 0;

  constructor(place: Place, around: Surroundings) {
    this.place = place;
    this.name = place === "client" ? "client" : `worker ${place}`;
    this.#around = around;
    for (const fault of around.schedule) {
      if (!("call" in fault) || fault.worker !== place) continue;
      this.#faults.set(fault.call, [...(this.#faults.get(fault.call) ?? []), fault]);
    }
    this.#process = new SimulatedProcess(around.time);
  }

  get #number(): number {
    return typeof this.place === "number" ? this.place : -1;
  }

  get process(): SimulatedProcess {
    return this.#process;
  }

  /** The runtime, while it can be asked something. */
  get runtime(): Runtime | undefined {
    return this.#process.alive && !this.#process.frozen ? this.#runtime : undefined;
  }

  /** Another process takes the place. */
  start(): void {
    const { seed, time, scheduler } = this.#around;
    const code = this.#around.code();
    this.#incarnation += 1;
    const random = randomOf(seed, "clock", this.name, this.#incarnation);
    const process = new SimulatedProcess(time, random.chance(0.5) ? 0 : random.int(-5_000, 5_000));
    this.#process = process;
    this.#runtime = undefined;
    this.#around.trace(`${this.name} comes up`);
    const isClient = this.place === "client";
    const runtime = createRuntime({
      workflows: code.workflows.map((workflow) => this.#watched(workflow, process)),
      effects: (code.effects ?? []).map((effect) => this.#watchedEffect(effect, process)),
      ...(code.queues ? { queues: code.queues } : {}),
      store: this.#storeOf(process, code),
      scheduler: isClient ? false : scheduler,
      clock: process,
      ids: testIds(seedOf(seed, "ids", this.name, this.#incarnation)),
      log: {
        debug: () => undefined,
        info: () => undefined,
        warn: (message) => this.#around.trace(`${this.name} warns: ${message}`),
        error: (message, fields) => this.#around.trace(`${this.name} reports: ${message} ${shown(fields?.error)}`),
      },
    });
    runtime.then(
      (opened) => {
        if (process === this.#process && process.alive) this.#runtime = opened;
      },
      (error: unknown) => {
        this.#around.trace(`${this.name} could not start: ${shown(error)}`);
        if (process !== this.#process || !process.alive) return;
        process.die();
        time.setTimer(() => this.#process === process && this.start(), againMs);
      },
    );
  }

  /** The process stands still for a while. */
  freeze(ms: number): void {
    const process = this.#process;
    if (!process.alive || process.frozen) return;
    const { time, trace } = this.#around;
    trace(`${this.name} stands still`);
    process.freeze();
    time.setTimer(() => {
      if (!process.alive || !process.frozen) return;
      trace(`${this.name} goes on`);
      process.thaw();
    }, ms);
  }

  /** The process is gone, whatever it was doing. */
  crash(restartMs?: number): void {
    const process = this.#process;
    if (!process.alive) return;
    this.#around.trace(`${this.name} dies`);
    process.die();
    this.#around.calls.abandon(this.#number);
    if (restartMs !== undefined) this.#around.time.setTimer(() => process === this.#process && this.start(), restartMs);
  }

  // ---- The store as this process sees it ----------------------------------------------------------------------------

  #storeOf(process: SimulatedProcess, code: SimulatedCode): Store {
    const forwarding = wrapStore({ name: "simulated", blobs: this.#around.blobs }, (method, args) =>
      this.#call(process, method, args),
    );
    const store = usesTransactions(code) ? { ...forwarding, transact: this.#transact(process) } : forwarding;
    // Hints come late, or not at all: in a third of the seeds nobody hears anything.
    const { seed, time, hear, latencyMs } = this.#around;
    if (randomOf(seed, "hints").chance(0.33)) return store;
    return {
      ...store,
      hear: (heard) => {
        const unhear = hear(() => {
          if (!process.alive) unhear();
          else time.setTimer(() => process.enter(heard), latencyMs);
        });
        return unhear;
      },
    };
  }

  /** A transaction is what its handlers wrote, by idempotency key. It stands if the commit does that was made within it. */
  #transact(process: SimulatedProcess): NonNullable<Store["transact"]> {
    return async (work) => {
      // It begins with a call like any other.
      await this.#call(process, "stats", []);
      const written: string[] = [];
      return work(written, async (transitions) => {
        for (const { runId, records } of transitions)
          this.#around.observer.transactions.push({ runId, hash: records.at(-1)?.hash ?? "", written: [...written] });
        return (transitions.length === 0 ? [] : await this.#call(process, "commit", [transitions])) as Mail[][];
      });
    };
  }

  #call(process: SimulatedProcess, method: StoreMethod, args: readonly unknown[]): Promise<unknown> {
    if (!process.alive) return never;
    // The store is everybody's; a runtime that stops closes what it was given.
    if (method === "close") return Promise.resolve();
    this.#calls += 1;
    const number = this.#calls;
    const { setBacks } = process;
    const answered = (): void => {
      if (method === "renew") process.setBacksAtRenewal = Math.max(process.setBacksAtRenewal, setBacks);
    };
    if (method === "commit") this.#around.calls.sent(this.#number, args[0] as { runId: string; records: unknown[] }[]);
    const { time, trace } = this.#around;
    const faults = this.#around.faulty() ? (this.#faults.get(number) ?? []) : [];
    const find = (kind: CallFault["fault"]) =>
      faults.find((fault) => fault.fault === kind) as { ms: number; restartMs: number } | undefined;
    const dies = find("crash-before");
    if (dies) {
      trace(`${this.name} call ${number} ${method}: dies before`);
      this.crash(dies.restartMs);
      return never;
    }
    const arrival = this.#arrival(method, args, this.#latency(number, "request") + (find("delay-request")?.ms ?? 0));
    return new Promise((resolve, reject) => {
      const answer = (settle: () => void): void => {
        const ms = this.#latency(number, "answer") + (find("delay-answer")?.ms ?? 0);
        if (ms === 0) process.enter(settle);
        else time.setTimer(() => process.enter(settle), ms);
      };
      const fail = (problem: string): void => {
        trace(`${this.name} call ${number} ${method}: ${problem}`);
        answer(() => reject(new AbstractRuntimeError("STORE_UNAVAILABLE", { store: "simulated", problem })));
      };
      const arrive = (): void => {
        if (this.#around.storeIsDown()) return fail("the store is down");
        if (find("fail-before")) return fail("the call failed");
        const twice = find("repeat-call") !== undefined && repeatable.includes(method);
        const call = (): Promise<unknown> => this.#around.observer.call(method, args);
        // The second time, what stands is not done again, and is no conflict either (S2).
        const called = twice
          ? call().then((first) =>
              call().then(
                () => first,
                (error: unknown) => this.#refused(args, error) ?? first,
              ),
            )
          : call();
        called.then(
          (value) => {
            trace(`${this.name} call ${number} ${method}: ${digest(method, args, value)}`);
            const late = find("crash-after");
            if (late && process.alive && this.#around.faulty()) this.crash(late.restartMs);
            const stands = find("freeze-after");
            if (stands && process === this.#process && this.#around.faulty()) this.freeze(stands.ms);
            if (find("fail-after")) fail("the acknowledgement was lost");
            else
              answer(() => {
                answered();
                resolve(value);
              });
          },
          (error: unknown) => {
            trace(`${this.name} call ${number} ${method}: ${shown(error)}`);
            answer(() => reject(error));
          },
        );
      };
      if (arrival <= time.now()) arrive();
      else time.at(arrival, arrive);
    });
  }

  #refused(args: readonly unknown[], error: unknown): undefined {
    const [first] = args as [{ runId?: string; records?: unknown[] }[]];
    const problem = `a call was carried out, and refused when it was made again: ${shown(error)}`;
    if (Array.isArray(first) && first.every(({ records }) => records === undefined || records.length > 0))
      this.#around.violated(new Violation("no-transition-twice", problem, first[0]?.runId));
  }

  /** When a call reaches the store: not before those that were made for the same run. */
  #arrival(method: StoreMethod, args: readonly unknown[], ms: number): number {
    const now = this.#around.time.now();
    if (ms === 0 && this.#arriving <= now) return now;
    let arrival = now + ms;
    const keys = subjects(method, args);
    for (const key of keys) arrival = Math.max(arrival, this.#arrivals.get(key) ?? 0);
    for (const key of keys) this.#arrivals.set(key, arrival);
    this.#arriving = Math.max(this.#arriving, arrival);
    return arrival;
  }

  #latency(call: number, leg: string): number {
    const { latencyMs, seed } = this.#around;
    return latencyMs === 0 ? 0 : randomOf(seed, leg, this.name, call).int(0, latencyMs);
  }

  // ---- The code of this process --------------------------------------------------------------------------------------

  #watched(workflow: Workflow, process: SimulatedProcess): Workflow {
    const effects = new Map([...workflow.effects].map(([type, effect]) => [type, this.#watchedDefinition(effect, process)]));
    const nodes = new Map(
      [...workflow.nodes].map(([name, node]) => [
        name,
        { ...node, run: this.#around.calls.watchedNode(node.run, process, this.#number) },
      ]),
    );
    return Object.freeze({ ...workflow, effects, nodes });
  }

  #watchedEffect(effect: AnyEffect, process: SimulatedProcess): AnyEffect {
    const definition = this.#watchedDefinition(effect.definition, process);
    return Object.assign(() => undefined, { effectType: effect.effectType, definition });
  }

  #watchedDefinition(definition: AnyEffect["definition"], process: SimulatedProcess): AnyEffect["definition"] {
    const handler = this.#around.handlers[definition.type] ?? definition.run;
    return this.#around.calls.watched(definition, handler, process, this.#number);
  }
}

function usesTransactions({ workflows, effects = [] }: SimulatedCode): boolean {
  const definitions = [
    ...workflows.flatMap((workflow) => [...workflow.effects.values()]),
    ...effects.map((effect) => effect.definition),
  ];
  return definitions.some(({ transactional }) => transactional);
}

/** The runs that a call is for, or its own kind where it is for none. */
function subjects(method: StoreMethod, args: readonly unknown[]): string[] {
  const [first] = args;
  if (typeof first === "string" && method !== "renew" && method !== "retire") return [first];
  if (method === "create") return (first as { row: { runId: string } }[]).map(({ row }) => row.runId);
  if (method === "commit" || method === "deliver") return (first as { runId: string }[]).map(({ runId }) => runId);
  return [method];
}

/** Of an answer, what a trace tells runs of one seed apart by. */
function digest(method: StoreMethod, args: readonly unknown[], value: unknown): string {
  switch (method) {
    case "commit":
      return (args[0] as { runId: string; records: { seq: number; hash: string }[]; release: boolean }[])
        .map(({ runId, records, release }) => {
          const last = records.at(-1);
          return `${runId} ${last ? `to ${last.seq} ${last.hash.slice(0, 12)}` : "nothing"}${release ? ", released" : ""}`;
        })
        .join("; ");
    case "claim":
      return (value as { row: { runId: string; seq: number } }[]).map(({ row }) => `${row.runId} at ${row.seq}`).join(", ");
    case "deliver":
      return (args[0] as { runId: string; id: string }[])
        .map(({ runId, id }, i) => `${id} to ${runId} ${(value as { kind: string }[])[i]?.kind}`)
        .join("; ");
    case "release":
      return String(args[0]);
    default:
      return "ok";
  }
}

export function shown(error: unknown): string {
  return error instanceof Error ? error.message.slice(0, 200) : String(error ?? "");
}
