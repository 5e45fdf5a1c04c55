/**
 * Deterministic simulation testing, as FoundationDB and TigerBeetle do it: several workers, one store, their clocks, a mailbox and an
 * outside world in one process, all driven by one seed. Workers die and stand still, calls fail or are slow, acknowledgements are lost,
 * messages come late, twice and early, clocks jump; then the world becomes calm, and whatever this library promises must be true.
 *
 * A seed that fails says which promise was broken, the smallest schedule of faults that breaks it, and how to run it again.
 */
import { isDefinedEffect } from "../../kernel/effect.ts";
import { AbstractRuntimeError, checkOptions } from "../../kernel/errors.ts";
import type { Clock } from "../../kernel/clock.ts";
import type { Store, Workflow } from "../../index.ts";
import type { Handler } from "./calls.ts";
import type { SimulationInvariant } from "./invariants.ts";
import { minimise } from "./minimise.ts";
import { defaultRates, describeFault, type FaultRates, type SimulatedFault } from "./plan.ts";
import { type Played, play, type PlayOptions } from "./play.ts";
import type { SimulationRandom } from "./random.ts";
import type { InvariantName } from "./violation.ts";
import type { SimulatedCode } from "./worker.ts";
import type { SimulatedWait, StartWith } from "./world.ts";

export type { HandlerCall } from "./calls.ts";
export type { SimulationEnd, SimulationInvariant } from "./invariants.ts";
export { describeFault, type FaultRates, type SimulatedFault } from "./plan.ts";
export type { SimulationRandom } from "./random.ts";
export type { InvariantName } from "./violation.ts";
export type { SimulatedCode } from "./worker.ts";
export type { SimulatedWait, StartWith } from "./world.ts";

export interface SimulateOptions {
  /** How many seeds, from 1; or which: a list, or `{ from, count }`. Default: 100. */
  seeds?: number | readonly number[] | { from: number; count: number };
  /** What goes wrong, and how often on average in a seed; `false` for nothing. Default: everything, see `FaultRates`. */
  faults?: FaultRates | false;
  /** Exactly these faults in every seed instead of those that the seed gives: to run a failure again. */
  schedule?: readonly SimulatedFault[];
  /** Ids of the workflows whose runs the outside world starts, in turn. Default: the first of `workflows`. */
  start?: readonly string[];
  /** Processes that drive runs. Default: 1 to 3, by the seed. */
  workers?: number;
  /** Runs that are started. Default: 1 to 4, by the seed. */
  runs?: number;
  /** The vars of a run. Default: `{}`. */
  vars?: (random: SimulationRandom, run: { seed: number; index: number; workflowId: string }) => object;
  /** The queue, key, priority and delay of a run. Default: none. */
  startWith?: (random: SimulationRandom, run: { seed: number; index: number; workflowId: string }) => StartWith;
  /**
   * What the outside world answers to a wait: the text or object for a question, the payload of an event, the result of a job.
   * Undefined leaves it to the default: one of the wait's choices, a value that fits its JSON Schema, or some text. Whoever is asked
   * what became of an effect (`details.uncertain`) looks it up in what the handlers did.
   */
  answer?: (wait: SimulatedWait, random: SimulationRandom) => unknown;
  /** Handlers to call instead of the real ones, by effect type. Handlers should be quick, use `context.clock`, and touch nothing real. */
  handlers?: Readonly<Record<string, Handler>>;
  /** Checks of your own, made when all runs of a seed have ended. */
  invariants?: SimulationInvariant | readonly SimulationInvariant[];
  /** Makes an empty store for each seed, which must keep to `clock` and to nothing else; it is closed afterwards. Default: `memoryStore`. */
  store?: (options: { clock: Clock }) => Store | Promise<Store>;
  /** When the world becomes calm, in milliseconds of virtual time. Default: 60,000. */
  calmMs?: number;
  /** Longest virtual time of a seed, in milliseconds. Default: two years. */
  longestMs?: number;
  /** Most timers and late answers of one seed: a run that goes round for ever ends there, as stuck. Default: 200,000. */
  maxEvents?: number;
  /** After so many seeds that failed, no more are tried. Default: 1. */
  maxFailures?: number;
  /** Whether to look for the smallest schedule that fails. Default: true. */
  minimise?: boolean;
  /** Called after each seed, to show progress. */
  onSeed?: (seed: SeedReport) => void;
}

/** What one seed came to. */
export interface SeedReport {
  seed: number;
  ok: boolean;
  /** SHA-256 of everything that happened: the same for every run of the same seed and code. */
  hash: string;
  faults: number;
  /** Runs, children included. */
  runs: number;
  records: number;
  handlerCalls: number;
  storeCalls: number;
  virtualMs: number;
}

/** A seed in which a promise was broken. */
export interface SimulationFailure {
  seed: number;
  invariant: InvariantName;
  /** What was found. */
  problem: string;
  /** The smallest schedule found that breaks the same promise. */
  schedule: readonly SimulatedFault[];
  /** The schedule that the seed gave. */
  originalSchedule: readonly SimulatedFault[];
  /** Whether the same seed and schedule failed alike a second time. When not, something in the workflow is not deterministic. */
  repeatable: boolean;
  /** What happened under `schedule`, a line each: milliseconds from the beginning, then who did what. */
  trace: readonly string[];
  /** All of this as text, with how to run it again. */
  message: string;
}

export interface SimulationReport {
  ok: boolean;
  failures: SimulationFailure[];
  /** Seeds that were tried. */
  seeds: number;
  /** Sums over the seeds. */
  totals: Omit<SeedReport, "seed" | "ok" | "hash">;
  /** By seed: hash of its trace. */
  hashes: ReadonlyMap<number, string>;
  /** What the failures say, or undefined: `expect(report.problem).toBeUndefined()`. */
  problem?: string;
}

const optionNames: readonly (keyof SimulateOptions)[] = [
  "seeds",
  "faults",
  "schedule",
  "start",
  "workers",
  "runs",
  "vars",
  "startWith",
  "answer",
  "handlers",
  "invariants",
  "store",
  "calmMs",
  "longestMs",
  "maxEvents",
  "maxFailures",
  "minimise",
  "onSeed",
];

/**
 * Simulates runs of a workflow under faults, seed by seed, and checks after each that every run ended, that nothing was lost or done
 * twice, that effects were called as they declare, and that the ledgers hold.
 *
 * @param code A workflow; several, with effects and queues for all of them; or a function that makes these from the seed.
 * @returns A report. It does not reject when a promise was broken: see `problem`.
 * @throws INVALID_OPTION
 */
export async function simulate(
  code: Workflow | SimulatedCode | ((seed: number) => Workflow | SimulatedCode),
  options: SimulateOptions = {},
): Promise<SimulationReport> {
  checkOptions(options, optionNames, "simulate()");
  if (options.faults) checkOptions(options.faults, Object.keys(defaultRates), "simulate({ faults })");
  const totals = { faults: 0, runs: 0, records: 0, handlerCalls: 0, storeCalls: 0, virtualMs: 0 };
  const hashes = new Map<number, string>();
  const failures: SimulationFailure[] = [];
  for (const seed of seedsOf(options.seeds ?? 100)) {
    const played = await play(playOptions(code, seed, options, options.schedule));
    const report = reportOf(played);
    hashes.set(seed, played.hash);
    for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += report[key];
    options.onSeed?.(report);
    if (!played.violation) continue;
    failures.push(await explain(code, played, options));
    if (failures.length >= (options.maxFailures ?? 1)) break;
  }
  return {
    ok: failures.length === 0,
    failures,
    seeds: hashes.size,
    totals,
    hashes,
    ...(failures.length > 0 ? { problem: failures.map(({ message }) => message).join("\n\n") } : {}),
  };
}

function* seedsOf(seeds: NonNullable<SimulateOptions["seeds"]>): Generator<number> {
  if (typeof seeds === "object" && !("from" in seeds)) return yield* seeds;
  const { from, count } = typeof seeds === "number" ? { from: 1, count: seeds } : seeds;
  for (let seed = from; seed < from + count; seed++) yield seed;
}

function playOptions(
  given: Parameters<typeof simulate>[0],
  seed: number,
  options: SimulateOptions,
  schedule: readonly SimulatedFault[] | undefined,
): PlayOptions {
  const made = typeof given === "function" && !isDefinedEffect(given) ? given(seed) : given;
  const code: SimulatedCode = "workflows" in made ? made : { workflows: [made as Workflow] };
  const [first] = code.workflows;
  if (!first) throw new AbstractRuntimeError("INVALID_OPTION", { option: "workflows", problem: "simulate() needs a workflow" });
  const quiet: FaultRates = Object.fromEntries(Object.keys(defaultRates).map((kind) => [kind, false]));
  const { invariants = [] } = options;
  return {
    code,
    seed,
    start: options.start ?? [first.id],
    ...(schedule ? { schedule } : {}),
    faults: options.faults === false ? quiet : (options.faults ?? {}),
    ...(options.workers === undefined ? {} : { workers: options.workers }),
    ...(options.runs === undefined ? {} : { runs: options.runs }),
    ...(options.vars ? { vars: options.vars } : {}),
    ...(options.startWith ? { startWith: options.startWith } : {}),
    ...(options.answer ? { answer: options.answer } : {}),
    handlers: options.handlers ?? {},
    invariants: typeof invariants === "function" ? [invariants] : invariants,
    ...(options.store ? { store: options.store } : {}),
    calmMs: options.calmMs ?? 60_000,
    longestMs: options.longestMs ?? 2 * 366 * 86_400_000,
    maxEvents: options.maxEvents ?? 200_000,
  };
}

function reportOf(played: Played): SeedReport {
  const { seed, hash, runs, records, handlerCalls, storeCalls, virtualMs } = played;
  return {
    seed,
    ok: !played.violation,
    hash,
    faults: played.schedule.length,
    runs,
    records,
    handlerCalls,
    storeCalls,
    virtualMs,
  };
}

/** Runs a failed seed again, makes its schedule smaller, and says what there is to say. */
async function explain(
  code: Parameters<typeof simulate>[0],
  played: Played,
  options: SimulateOptions,
): Promise<SimulationFailure> {
  const { seed, schedule: originalSchedule } = played;
  const again = (schedule: readonly SimulatedFault[]): Promise<Played> => play(playOptions(code, seed, options, schedule));
  const repeated = await again(originalSchedule);
  const repeatable = repeated.hash === played.hash;
  const { invariant } = played.violation as NonNullable<Played["violation"]>;
  const fails = async (part: readonly SimulatedFault[]): Promise<boolean> =>
    (await again(part)).violation?.invariant === invariant;
  const isMinimised = repeatable && options.minimise !== false;
  const schedule = isMinimised ? await minimise(originalSchedule, fails) : originalSchedule;
  const last = schedule === originalSchedule ? played : await again(schedule);
  const problem = (last.violation ?? played.violation)?.message ?? "";
  const size = `${schedule.length} of ${originalSchedule.length} ${originalSchedule.length === 1 ? "fault" : "faults"}`;
  const message = [
    `Seed ${seed} breaks "${invariant}": ${problem}`,
    ...(repeatable
      ? []
      : ["A second run of the same seed went another way: something in the workflow or its handlers is not deterministic."]),
    schedule.length === 0
      ? "It takes no fault at all."
      : isMinimised
        ? `It takes these (${size}):`
        : `The faults were (${size}):`,
    ...schedule.map((fault) => `  - ${describeFault(fault)}`),
    "Run it again:",
    `  simulate(workflow, { seeds: [${seed}], schedule: ${JSON.stringify(schedule)} })`,
    "What happened last:",
    ...last.trace.slice(-25).map((line) => `  ${line}`),
  ].join("\n");
  return { seed, invariant, problem, schedule, originalSchedule, repeatable, trace: last.trace, message };
}
