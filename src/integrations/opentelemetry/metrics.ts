/** The metrics: histograms of what this process does, and gauges of what stands in the store. */
import type { Attributes, BatchObservableResult, Histogram, Meter } from "@opentelemetry/api";
import type { StoreState } from "../../index.ts";
import { attributes as a, gauges, histograms } from "./conventions.ts";

/** Zero is told too, so that what was there before does not stay on a dashboard. */
const statuses = ["running", "waiting", "completed", "failed", "cancelled"];
const waitReasons = ["event", "until", "user", "job", "subworkflow"];

export class Metrics {
  readonly #meter: Meter;
  readonly #stuckAfterMs: number;
  readonly #stepDuration: Histogram;
  readonly #commitSize: Histogram;
  readonly #modelDuration: Histogram;
  readonly #tokenUsage: Histogram;

  constructor(meter: Meter, stuckAfterMs: number) {
    const histogram = ({ name, unit, description, boundaries }: (typeof histograms)[keyof typeof histograms]) =>
      meter.createHistogram(name, { unit, description, advice: { explicitBucketBoundaries: boundaries } });
    this.#meter = meter;
    this.#stuckAfterMs = stuckAfterMs;
    this.#stepDuration = histogram(histograms.stepDuration);
    this.#commitSize = histogram(histograms.commitSize);
    this.#modelDuration = histogram(histograms.modelDuration);
    this.#tokenUsage = histogram(histograms.tokenUsage);
  }

  step(seconds: number, attributes: Attributes): void {
    this.#stepDuration.record(seconds, attributes);
  }

  committed(records: number): void {
    this.#commitSize.record(records);
  }

  /** @param said What the span of the call says. */
  modelCall(seconds: number, said: Attributes): void {
    const by = pick(said, [a.operation, a.provider, a.requestModel, a.responseModel]);
    this.#modelDuration.record(seconds, { ...by, ...pick(said, [a.errorType]) });
    for (const [type, key] of [
      ["input", a.inputTokens],
      ["output", a.outputTokens],
    ] as const)
      if (typeof said[key] === "number") this.#tokenUsage.record(said[key], { ...by, [a.tokenType]: type });
  }

  /** Asks a store whenever metrics are collected. Answers with what ends that. */
  watch(state: StoreState): () => void {
    const [runs, queueAge, stuckWaits, blocked] = [gauges.runs, gauges.queueAge, gauges.stuckWaits, gauges.blocked].map(
      ({ name, ...about }) => this.#meter.createObservableGauge(name, about),
    ) as [Gauge, Gauge, Gauge, Gauge];
    const observe = async (result: BatchObservableResult): Promise<void> => {
      const [stats, waiting] = await Promise.all([state.stats(), state.waiting(this.#stuckAfterMs)]);
      const ageOf = (dueAt: number | undefined): number => (dueAt === undefined ? 0 : Math.max(0, state.now() - dueAt) / 1000);
      if (stats) {
        for (const status of statuses) result.observe(runs, stats.byStatus[status] ?? 0, { [a.status]: status });
        result.observe(queueAge, ageOf(stats.oldestDueAt));
        for (const [queue, { oldestDueAt }] of Object.entries(stats.queues))
          result.observe(queueAge, ageOf(oldestDueAt), { [a.queue]: queue });
        result.observe(blocked, stats.blocked - stats.quarantined, { [a.blockedBy]: "code" });
        result.observe(blocked, stats.quarantined, { [a.blockedBy]: "damage" });
      }
      if (waiting)
        for (const reason of waitReasons) {
          const count = waiting.find(({ value }) => value === reason)?.count ?? 0;
          result.observe(stuckWaits, count, { [a.waitReason]: reason });
        }
    };
    const observed = [runs, queueAge, stuckWaits, blocked];
    this.#meter.addBatchObservableCallback(observe, observed);
    return () => this.#meter.removeBatchObservableCallback(observe, observed);
  }
}

type Gauge = ReturnType<Meter["createObservableGauge"]>;

function pick(from: Attributes, keys: readonly string[]): Attributes {
  return Object.fromEntries(keys.flatMap((key) => (from[key] === undefined ? [] : [[key, from[key]]])));
}
