/** Telemetry that fails must not fail or stop a run: what an instrument throws is reported once, and counts for nothing. */
import type { Activity, Ending, Instrument, StoreState, Traced, TraceHeaders } from "../kernel/instrument.ts";

type Report = (message: string, fields: { error: unknown }) => void;

export class GuardedInstrument implements Instrument {
  readonly #instrument: Instrument;
  readonly #safely: Safely;

  constructor(instrument: Instrument, report: Report) {
    this.#instrument = instrument;
    let reported = false;
    this.#safely = (otherwise, action) => {
      try {
        return action();
      } catch (error) {
        if (!reported) report("telemetry failed; what else it throws is not reported", { error });
        reported = true;
        return otherwise;
      }
    };
  }

  here(): TraceHeaders {
    return this.#safely(none, () => this.#instrument.here());
  }

  begin(what: Activity, within?: Traced): Traced {
    const parent = (within as GuardedTraced | undefined)?.traced;
    const traced = this.#safely(undefined, () => this.#instrument.begin(what, parent));
    return new GuardedTraced(traced, this.#safely);
  }

  committed(records: number): void {
    this.#safely(undefined, () => this.#instrument.committed(records));
  }

  watch(state: StoreState): () => void {
    const stop = this.#safely(undefined, () => this.#instrument.watch(state));
    return () => this.#safely(undefined, () => stop?.());
  }
}

type Safely = <T>(otherwise: T, action: () => T) => T;
const none: TraceHeaders = {};

class GuardedTraced implements Traced {
  readonly traced: Traced | undefined;
  readonly #safely: Safely;

  constructor(traced: Traced | undefined, safely: Safely) {
    this.traced = traced;
    this.#safely = safely;
  }

  headers(): TraceHeaders {
    return this.#safely(none, () => this.traced?.headers() ?? none);
  }

  within<T>(action: () => T): T {
    const { traced } = this;
    if (!traced) return action();
    // Called exactly once, whatever stands around it, and what it throws is its caller's.
    let done: (() => T) | undefined;
    const call = (): void => {
      if (done) return;
      try {
        const value = action();
        done = () => value;
      } catch (thrown) {
        done = () => {
          throw thrown;
        };
      }
    };
    this.#safely(undefined, () => traced.within(call));
    if (!done) call();
    return (done as unknown as () => T)();
  }

  end(how: Ending): void {
    this.#safely(undefined, () => this.traced?.end(how));
  }
}
