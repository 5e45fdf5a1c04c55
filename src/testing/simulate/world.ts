/**
 * The outside world: whoever starts runs, answers their questions, sends events and job results, and now and then cancels or pauses.
 * It asks through the client or through a worker, and asks again until it has an answer: what was acknowledged to it must be true.
 */
import type { Runtime, StartOptions } from "../../index.ts";
import { isError } from "../../kernel/errors.ts";
import { equalJson, type Json, type JsonObject } from "../../kernel/json.ts";
import { decodeRecord } from "../../kernel/record.ts";
import { fold } from "../../kernel/fold.ts";
import { encodeState, type RunState, type WaitState } from "../../kernel/run.ts";
import type { Message } from "../../kernel/message.ts";
import { answerTo, asksWhatHappened } from "./answers.ts";
import type { HandlerCall } from "./calls.ts";
import type { VirtualTime } from "./clock.ts";
import type { End, KnownRun, KnownWait, Observer } from "./observer.ts";
import type { SimulatedFault } from "./plan.ts";
import { randomOf, type SimulationRandom } from "./random.ts";
import { Violation } from "./violation.ts";
import { shown, type Worker } from "./worker.ts";

/** A wait that the outside world is about to answer. */
export interface SimulatedWait extends WaitState {
  runId: string;
  workflowId: string;
  nodeId: string;
  /** The type of the effect that waits, such as `ask_user`. */
  effectType: string;
}

/** In which queue a run starts, and when. */
export type StartWith = Pick<StartOptions, "queue" | "queueKey" | "priority" | "delayMs">;

/** A run that the world starts. */
export interface PlannedRun {
  runId: string;
  workflowId: string;
  vars: JsonObject;
  options: StartWith;
  /** Milliseconds after the beginning. */
  startMs: number;
}

export interface WorldOptions {
  seed: number;
  time: VirtualTime;
  observer: Observer;
  /** The calls of handlers so far: whoever is asked what became of an effect looks there. */
  calls: readonly HandlerCall[];
  workers: readonly Worker[];
  client: Worker;
  runs: readonly PlannedRun[];
  schedule: readonly SimulatedFault[];
  answer?: (wait: SimulatedWait, random: SimulationRandom) => unknown;
  isCalm(): boolean;
  trace(line: string): void;
  violated(violation: Violation): void;
}

type Asked<T> = { kind: "told"; value: T } | { kind: "refused"; code: string; error: unknown } | { kind: "lost" };

/** After this, an asker gives up and asks again. */
const patienceMs = 15_000;
/** After so many attempts of an uncertain effect nobody says "again" any more. */
const patientAttempts = 4;
/** What may befall a question without being its answer. `run` may also hear that another worker took the run. */
const passing = ["STORE_UNAVAILABLE", "STORE_CLOSED", "RUNTIME_STOPPED", "CONFLICT", "MAILBOX_FULL"];
/** What an answer to a wait that has ended meanwhile may be told. */
const tooLate = ["NOT_WAITING", "ALREADY_ANSWERED", "WAIT_KEY_MISMATCH", "WAIT_AMBIGUOUS", "RUN_ENDED"];

export class World {
  /** Things that it has not finished. */
  busy = 0;
  /** Runs whose end somebody was told, with what they were told. */
  readonly told: { runId: string; status: string; output?: Json }[] = [];
  readonly #options: WorldOptions;
  #messages = 0;
  /** By what is asked: so a question more elsewhere changes nothing here. */
  readonly #asked = new Map<string, number>();

  constructor(options: WorldOptions) {
    this.#options = options;
  }

  begin(): void {
    const { runs, schedule, time, seed } = this.#options;
    const start = time.now();
    for (const [i, run] of runs.entries()) {
      time.at(start + run.startMs, () => this.#task(() => this.#start(run, `start ${i}`)));
      if (randomOf(seed, "result", i).chance(0.3)) time.at(start + run.startMs + 1, () => this.#task(() => this.#await(run)));
    }
    for (const [i, fault] of schedule.entries()) {
      if (fault.fault === "start-again") {
        const run = runs[fault.run % runs.length] as PlannedRun;
        time.at(start + fault.at, () => this.#task(() => this.#start(run, `start again ${i}`)));
      } else if (fault.fault === "cancel") {
        time.at(start + fault.at, () => this.#task(() => this.#control(fault.run, "cancel", `cancel-${i}`)));
      } else if (fault.fault === "pause") {
        time.at(start + fault.at, () => this.#task(() => this.#pause(fault, i)));
      } else if (fault.fault === "archive") {
        time.at(start + fault.at, () => this.#task(() => this.#archive(fault.run, `archive-${i}`)));
      }
    }
  }

  /** Long after the world became calm, no pause is under way any more, not even one that was asked for and came late. */
  endPauses(): void {
    if (!this.#options.schedule.some(({ fault }) => fault === "pause")) return;
    for (const run of this.#options.observer.runs)
      if (!run.ended) this.#task(() => this.#control(run.number, "unpause", `last unpause ${run.number}`, run));
  }

  /** A run waits: it will get what it waits for. */
  waits(known: KnownWait): void {
    const { reason } = known.wait;
    if (reason === "until" || reason === "subworkflow") return;
    const message = this.#messages;
    this.#messages += 1;
    this.#task(() => this.#serve(known, message));
  }

  /** A run that failed is tried again, if the schedule says so. */
  ended(run: KnownRun, end: End): void {
    const { schedule, isCalm } = this.#options;
    if (end !== "failed" || run.ends.length > 1 || isCalm()) return;
    for (const [i, fault] of schedule.entries())
      if (fault.fault === "retry" && fault.run === run.number) this.#task(() => this.#retry(run, fault.ms, `retry-${i}`));
  }

  // ---- Starting ------------------------------------------------------------------------------------------------------

  async #start(run: PlannedRun, name: string): Promise<void> {
    const { workflowId, runId, vars, options } = run;
    const drives = randomOf(this.#options.seed, name, runId).chance(0.4);
    await this.#until(name, async (attempt) => {
      if (drives && attempt === 0) {
        const asked = await this.#ask(name, (runtime) => runtime.run(workflowId, { ...options, vars, runId }), {
          withinMs: 60_000,
        });
        if (asked.kind === "told") this.#heard(runId, asked.value.status, asked.value.output as Json | undefined);
        // Whoever drives the run may be another: then it is asked as everybody asks.
        else if (asked.kind === "refused" && asked.code !== "RUN_BUSY" && asked.code !== "RUN_BLOCKED")
          this.#unexpected(name, asked.error, runId);
        return asked.kind === "told";
      }
      const asked = await this.#ask(name, (runtime) => runtime.start(workflowId, { ...options, vars, runId }));
      if (asked.kind === "refused") this.#unexpected(name, asked.error, runId);
      if (asked.kind === "told" && !this.#options.observer.get(runId))
        throw new Violation("promises-kept", "start() resolved, and the store does not have it", runId);
      return asked.kind !== "lost";
    });
  }

  /** Somebody waits for the end. */
  async #await({ runId }: PlannedRun): Promise<void> {
    const asked = await this.#ask("result", (runtime) => runtime.result(runId, { timeoutMs: 40_000 }), { withinMs: 60_000 });
    if (asked.kind === "told") this.#heard(runId, "completed", asked.value as Json);
    else if (asked.kind === "refused" && asked.code === "RUN_FAILED") this.#heard(runId, "failed");
    else if (asked.kind === "refused" && asked.code === "RUN_CANCELLED") this.#heard(runId, "cancelled");
    else if (asked.kind === "refused" && !["RESULT_TIMEOUT", "RUN_NOT_FOUND", "RUN_BLOCKED"].includes(asked.code))
      this.#unexpected("result", asked.error, runId);
  }

  #heard(runId: string, status: string, output?: Json): void {
    this.told.push({ runId, status, ...(output === undefined ? {} : { output }) });
    if (status === "running" || status === "waiting") return;
    const run = this.#options.observer.get(runId);
    if (!run?.ends.some((end) => end === status))
      throw new Violation(
        "promises-kept",
        `a caller was told that it ${status}, and the store says ${run?.ends.at(-1) ?? "it lives"}`,
        runId,
      );
    const last = run && decodeRecord(runId, run.records.at(-1) as never);
    if (last?.kind === "run_completed" && output !== undefined && !equalJson(last.data.output, output))
      throw new Violation("promises-kept", "a caller was told another output than the one recorded", runId);
  }

  // ---- Answers, events, job results ----------------------------------------------------------------------------------

  async #serve(known: KnownWait, message: number): Promise<void> {
    const { seed, time, schedule, isCalm, trace } = this.#options;
    const { run, effectId, wait } = known;
    const random = randomOf(seed, "message", run.runId, effectId, wait.waitKey, wait.reason);
    const faults = schedule.filter((fault) => "message" in fault && fault.message === message);
    const find = (kind: SimulatedFault["fault"]) =>
      isCalm() ? undefined : (faults.find((fault) => fault.fault === kind) as { ms: number } | undefined);
    const late = find("late-message");
    const delayMs = Math.floor(random.next() ** 3 * 20_000) + (late?.ms ?? 0);
    trace(`message ${message} is for ${wait.reason} "${wait.waitKey}" of ${run.runId}`);
    // One wait in five with a deadline is left to it, where that changes anything. Its event comes afterwards: another wait may have the
    // same key.
    const isLeft =
      wait.until !== undefined && wait.budget === undefined && wait.until - time.now() < 3_600_000 && random.chance(0.2) && !late;
    if (isLeft && wait.reason !== "event") return;
    await this.#sleep(isLeft ? (wait.until as number) - time.now() + delayMs : delayMs);
    const send = this.#message(known, message, random);
    if (wait.reason === "event" && find("early-event")) {
      for (const other of this.#options.observer.runs) {
        if (other !== run && !other.ended && other.workflowId === run.workflowId)
          this.#task(() => this.#early(other, known, message));
      }
    }
    await send();
    const again = find("repeat-message");
    if (again) {
      await this.#sleep(again.ms);
      await send();
    }
  }

  /** How one message is sent; each call sends the very same. */
  #message(known: KnownWait, message: number, random: SimulationRandom): () => Promise<void> {
    const { run, effectId, wait } = known;
    const { runId } = run;
    const name = `message ${message}`;
    if (wait.reason === "event") {
      const payload = this.#payload(known, random);
      const signal = (runtime: Runtime): Promise<unknown> => runtime.signal(runId, wait.waitKey, payload, { id: name });
      if (random.chance(0.75)) return () => this.#say(name, runId, signal);
      return () => this.#say(name, runId, (runtime) => runtime.emit(wait.waitKey, payload, { id: name }));
    }
    if (wait.reason === "job" && random.chance(0.5)) {
      const payload = this.#payload(known, random);
      const job: Message = { id: name, runId, kind: "job", key: wait.waitKey, payload, ifWaiting: effectId };
      return () => this.#say(name, runId, (runtime) => runtime.store.deliver([job], 10_000));
    }
    return () => this.#answer(known, name, random);
  }

  async #answer(known: KnownWait, name: string, random: SimulationRandom): Promise<void> {
    const { run, wait } = known;
    const { runId } = run;
    let refusals = 0;
    await this.#until(name, async () => {
      const payload = this.#payload(known, random);
      const asked = await this.#ask(name, (runtime) => runtime.resume(runId, { waitKey: wait.waitKey, payload }));
      if (asked.kind === "refused" && asked.code === "ANSWER_INVALID") {
        refusals += 1;
        if (refusals < 20) return false;
        throw new Violation(
          "every-run-ends",
          `no answer fits the wait "${wait.waitKey}": give the simulation an "answer" option. ${shown(asked.error)}`,
          runId,
        );
      }
      if (asked.kind === "refused" && !tooLate.includes(asked.code)) this.#unexpected(name, asked.error, runId);
      if (asked.kind === "told" && !this.#isAcknowledged(runId, wait.waitKey))
        throw new Violation(
          "promises-kept",
          `resume() of "${wait.waitKey}" resolved, and the store has acknowledged no answer`,
          runId,
        );
      return asked.kind !== "lost";
    });
  }

  #isAcknowledged(runId: string, key: string): boolean {
    for (const message of this.#options.observer.acknowledged.values())
      if (message.runId === runId && message.key === key && message.kind === "answer") return true;
    return false;
  }

  async #early(other: KnownRun, known: KnownWait, message: number): Promise<void> {
    const { seed } = this.#options;
    const payload = this.#payload(known, randomOf(seed, "early", message));
    const id = `early ${message}`;
    await this.#say(id, other.runId, (runtime) => runtime.signal(other.runId, known.wait.waitKey, payload, { id }));
  }

  #payload({ run, wait, type, nodeId }: KnownWait, random: SimulationRandom): Json {
    const { answer, calls } = this.#options;
    const { runId, workflowId } = run;
    const given = answer?.({ ...wait, runId, workflowId, nodeId, effectType: type }, random);
    if (given !== undefined) return given as Json;
    if (!asksWhatHappened(wait)) return answerTo(wait, random);
    // Whoever is asked looks the effect up at the other side. Now and then nobody looks.
    const { idempotencyKey, attempt } = wait.details as { idempotencyKey: string; attempt: number };
    const done = calls.findLast((call) => call.idempotencyKey === idempotencyKey && call.result !== undefined);
    if (done && random.chance(0.9)) return { result: done.result as Json };
    return attempt < patientAttempts ? { retry: true } : { result: (done?.result ?? null) as Json };
  }

  /** Says something again and again, until it is heard or comes too late. */
  async #say(name: string, runId: string, act: (runtime: Runtime) => Promise<unknown>, alsoHeard: string[] = []): Promise<void> {
    await this.#until(name, async () => {
      const asked = await this.#ask(name, act);
      if (asked.kind === "refused" && ![...tooLate, ...alsoHeard].includes(asked.code))
        this.#unexpected(name, asked.error, runId);
      return asked.kind !== "lost";
    });
  }

  // ---- Control -------------------------------------------------------------------------------------------------------

  async #pause(fault: Extract<SimulatedFault, { fault: "pause" }>, i: number): Promise<void> {
    const paused = await this.#control(fault.run, "pause", `pause-${i}`);
    await this.#sleep(fault.ms);
    if (paused) await this.#control(fault.run, "unpause", `unpause-${i}`, paused);
  }

  async #control(
    number: number,
    action: "cancel" | "pause" | "unpause",
    name: string,
    to?: KnownRun,
  ): Promise<KnownRun | undefined> {
    const { runs } = this.#options.observer;
    const run = to ?? (runs.length === 0 ? undefined : runs[number % runs.length]);
    if (!run || run.ended) return undefined;
    await this.#say(name, run.runId, (runtime) => runtime[action](run.runId));
    return run;
  }

  /** As `archiveLedger` does, without the file. */
  async #archive(number: number, name: string): Promise<void> {
    const { runs } = this.#options.observer;
    const run = runs[number % Math.max(1, runs.length)];
    if (!run || run.ended || run.records.length < 2) return;
    const { runId, records } = run;
    const before = randomOf(this.#options.seed, name).int(1, records.length - 1);
    let state: RunState | undefined;
    for (const record of records.slice(0, before)) state = fold(state, decodeRecord(runId, record));
    const payload = { before, hash: records[before - 1]?.hash ?? "", base: encodeState(state as RunState) };
    const message: Message = { id: `archived:${before}`, runId, kind: "control", key: "archived", payload };
    await this.#say(name, runId, (runtime) => runtime.store.deliver([message]));
  }

  async #retry(run: KnownRun, afterMs: number, name: string): Promise<void> {
    await this.#sleep(afterMs);
    await this.#say(name, run.runId, (runtime) => runtime.retry(run.runId), ["NOT_FAILED", "RETRY_REFUSED"]);
  }

  // ---- Asking --------------------------------------------------------------------------------------------------------

  /** Asks through whoever is there. An answer that takes too long, or that nobody gave, is lost. */
  async #ask<T>(name: string, act: (runtime: Runtime) => Promise<T>, { withinMs = patienceMs } = {}): Promise<Asked<T>> {
    const { seed, workers, client, time, trace } = this.#options;
    const times = this.#asked.get(name) ?? 0;
    this.#asked.set(name, times + 1);
    const random = randomOf(seed, "ask", name, times);
    const there = workers.filter(({ runtime }) => runtime);
    const via = there.length > 0 && random.chance(0.5) ? random.pick(there) : client;
    const { runtime, process } = via;
    if (!runtime) return { kind: "lost" };
    return new Promise((resolve) => {
      const settle = (asked: Asked<T>): void => {
        timer.cancel();
        trace(`${name} via ${via.name}: ${asked.kind}${asked.kind === "refused" ? ` ${asked.code}` : ""}`);
        resolve(asked);
      };
      const timer = time.setTimer(() => settle({ kind: "lost" }), withinMs);
      const failed = (error: unknown): void => {
        const code = isError(error) ? error.code : "unknown";
        settle(passing.includes(code) ? { kind: "lost" } : { kind: "refused", code, error });
      };
      // What a process that died or stands still would say is not heard.
      act(runtime).then(
        (value) => process.enter(() => settle({ kind: "told", value })),
        (error: unknown) => process.enter(() => failed(error)),
      );
    });
  }

  /** Does something again and again, ever more slowly, until it answers true. */
  async #until(name: string, act: (attempt: number) => Promise<boolean>): Promise<void> {
    const random = randomOf(this.#options.seed, "again", name);
    for (let attempt = 0; !(await act(attempt)); attempt++) await this.#sleep(random.int(200, 1_000) * Math.min(attempt + 1, 5));
  }

  #unexpected(name: string, error: unknown, runId: string): never {
    throw new Violation("promises-kept", `${name} was refused: ${shown(error)}`, runId);
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#options.time.setTimer(resolve, ms));
  }

  #task(act: () => Promise<unknown>): void {
    this.busy += 1;
    act().then(
      () => {
        this.busy -= 1;
      },
      (error: unknown) => {
        this.busy -= 1;
        this.#options.violated(
          error instanceof Violation
            ? error
            : new Violation("promises-kept", `the simulation failed: ${(error as Error)?.stack ?? error}`),
        );
      },
    );
  }
}
