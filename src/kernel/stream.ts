/**
 * What attempts show of their results before they have them. Provisional: no record depends on it, and an attempt that is made again
 * streams anew.
 */
import type { StreamPart } from "./effect.ts";

/** Where a stream stands in its run. */
export interface StreamPlace {
  readonly runId: string;
  readonly effectId: string;
  readonly step: number;
  readonly attempt: number;
}

/** Where streams go; the host decides who sees them. */
export interface Streams {
  /** @param begunAt Seq of the record with which the attempt had begun: once it is durable, so is that there is such an attempt. */
  open(place: StreamPlace, begunAt: number): EffectStream;
}

export interface EffectStream {
  write(part: StreamPart): void;
  /** Nothing more comes. Resolves when what was written is durable, or could not be made so; never rejects. */
  end(): Promise<void>;
}

/** Parts of a stream, as stores keep them. `offset` is where they begin: UTF-16 units of the text of all parts before. */
export interface StreamChunk extends StreamPlace {
  readonly offset: number;
  /** Where they end, counted in the same way. */
  readonly end: number;
  /** A list of `StreamPart`, as JSON text. */
  readonly parts: string;
}

/** An attempt's stream, from an offset on. */
export type StreamFrom = Omit<StreamPlace, "runId"> & { readonly offset: number };
