/** Chunks of streams: kept for a while, and given page by page. */
import type { StreamChunk, StreamFrom } from "../../kernel/stream.ts";
import { chunkPage } from "../paging.ts";
import type { Contents } from "./contents.ts";

export function appendStream({ runs, changed }: Contents, chunks: readonly StreamChunk[]): void {
  for (const chunk of chunks) {
    const run = runs.get(chunk.runId);
    const key = JSON.stringify([chunk.effectId, chunk.attempt, chunk.offset]);
    if (!run || run.streams.has(key)) continue;
    run.streams.set(key, { ...chunk });
    changed.add(run);
  }
  for (const runId of new Set(chunks.map((chunk) => chunk.runId))) dropOld(runs.get(runId)?.streams);
}

/** All but those of the last two steps that streamed. */
function dropOld(streams: Map<string, StreamChunk> = new Map()): void {
  let [last, before] = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const { step } of streams.values()) {
    if (step > last) [last, before] = [step, last];
    else if (step < last && step > before) before = step;
  }
  for (const [key, { step }] of streams) if (step < before) streams.delete(key);
}

export function readStream({ runs }: Contents, runId: string, from: readonly StreamFrom[]): StreamChunk[] {
  const chunks = [...(runs.get(runId)?.streams.values() ?? [])];
  return from
    .flatMap(({ effectId, attempt, offset }) =>
      chunks
        .filter((chunk) => chunk.effectId === effectId && chunk.attempt === attempt && chunk.end > offset)
        .sort((a, b) => a.offset - b.offset),
    )
    .slice(0, chunkPage)
    .map((chunk) => ({ ...chunk }));
}
