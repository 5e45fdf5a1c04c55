/**
 * Whose question it is. Before revision 2026-07-28 a server asks by a request of its own, which does not say which call it belongs to. Over
 * HTTP it comes on the stream of that call. Over stdio it is the only call that is under way; where there are more, it is held back until
 * the others have ended, and no call begins meanwhile. Should two ask at once, nobody can tell them apart: both are made again, and from
 * then on this connection has one call at a time.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { isDeepStrictEqual } from "node:util";
import type { Elicitation, ElicitationAnswer, Told } from "./questions.ts";
import { within } from "../within.ts";

/** A call under way. */
interface OpenCall {
  readonly controller: AbortController;
  /** Answers that the server has not asked for yet in this call. */
  readonly told: Told[];
  question?: Elicitation;
  stopped?: "asked" | "ambiguous" | "late" | "ended" | "aborted";
}

/** The first reason counts. */
export function stop(call: OpenCall, why: NonNullable<OpenCall["stopped"]>): void {
  if (call.stopped !== undefined) return;
  call.stopped = why;
  // The server is told this text.
  call.controller.abort("the call was broken off");
}

export class Askers {
  readonly #current = new AsyncLocalStorage<OpenCall>();
  readonly #open = new Set<OpenCall>();
  /** Questions whose call is being looked for. */
  #held = 0;
  #isSerial = false;
  #change = Promise.withResolvers<void>();

  async begin(told: readonly Told[], signal: AbortSignal): Promise<OpenCall> {
    while (this.#held > 0 || (this.#isSerial && this.#open.size > 0)) await within(signal, this.#change.promise);
    const call: OpenCall = { controller: new AbortController(), told: [...told] };
    this.#open.add(call);
    return call;
  }

  ended(call: OpenCall): void {
    this.#open.delete(call);
    this.#changed();
  }

  /** What `work` begins belongs to the call, the reading of its answer too. */
  in<T>(call: OpenCall, work: () => T): T {
    return this.#current.run(call, work);
  }

  streamEnded(): void {
    const call = this.#current.getStore();
    if (call) stop(call, "ended");
  }

  /** With what the call was told before; otherwise the call is broken off, and its tool hears that the question was cancelled. */
  async answer(asked: Elicitation): Promise<ElicitationAnswer> {
    const call = this.#current.getStore() ?? (await this.#asking());
    if (!call) return { action: "cancel" };
    const at = call.told.findIndex((told) => isSame(told.asked, asked));
    if (at >= 0) return (call.told.splice(at, 1)[0] as Told).answer;
    call.question ??= asked;
    stop(call, "asked");
    return { action: "cancel" };
  }

  async idle(): Promise<void> {
    while (this.#open.size > 0) await this.#change.promise;
  }

  async #asking(): Promise<OpenCall | undefined> {
    this.#held += 1;
    try {
      while (this.#open.size > this.#held) await this.#change.promise;
      if (this.#open.size > 1) {
        this.#isSerial = true;
        for (const call of this.#open) stop(call, "ambiguous");
      }
      return [...this.#open].find(({ stopped }) => stopped === undefined);
    } finally {
      this.#held -= 1;
      this.#changed();
    }
  }

  #changed(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }
}

/** Ids that the server makes anew with each question apart. */
function isSame(a: Elicitation, b: Elicitation): boolean {
  return a.message === b.message && a.url === b.url && isDeepStrictEqual(a.requestedSchema, b.requestedSchema);
}
