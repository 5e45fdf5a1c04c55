/** Chunks of streams: kept for a while, and given page by page. */
import type { StreamChunk, StreamFrom } from "../../kernel/stream.ts";
import { chunkPage } from "../paging.ts";
import type { Reader } from "./read.ts";

/** @param runOf The run as it stands in this transaction. */
export function appendStream(
  reader: Reader,
  runOf: (runId: string) => { run: number } | undefined,
  chunks: readonly StreamChunk[],
): void {
  const insert = reader.prepare("INSERT OR IGNORE INTO streams VALUES (?, ?, ?, ?, ?, ?, ?)");
  const runs = new Set<number>();
  for (const { runId, step, effectId, attempt, offset, end, parts } of chunks) {
    const found = runOf(runId);
    if (!found) continue;
    insert.run(found.run, step, effectId, attempt, offset, end, parts);
    runs.add(found.run);
  }
  // All but those of the last two steps that streamed.
  const drop = reader.prepare(
    `DELETE FROM streams WHERE run = ?1 AND step < (SELECT max(step) FROM streams WHERE run = ?1
       AND step < (SELECT max(step) FROM streams WHERE run = ?1))`,
  );
  for (const run of runs) drop.run(run);
}

export function readStream(reader: Reader, runId: string, from: readonly StreamFrom[]): StreamChunk[] {
  // The one in which the offset stands is the last that does not begin behind it.
  const select = reader.prepareArrays(
    `SELECT begin, finish, parts FROM streams, (SELECT run FROM runs WHERE run_id = ?1) AS named
     WHERE streams.run = named.run AND step = ?2 AND effect_id = ?3 AND attempt = ?4 AND finish > ?5
       AND begin >= coalesce((SELECT max(begin) FROM streams AS s WHERE s.run = named.run AND s.step = ?2 AND s.effect_id = ?3
         AND s.attempt = ?4 AND s.begin <= ?5), 0)
     ORDER BY begin LIMIT ?6`,
  );
  const chunks: StreamChunk[] = [];
  for (const { step, effectId, attempt, offset } of from) {
    if (chunks.length >= chunkPage) break;
    const rows = select.all(runId, step, effectId, attempt, offset, chunkPage - chunks.length) as unknown as unknown[][];
    for (const [begin, finish, parts] of rows)
      chunks.push({ runId, effectId, step, attempt, offset: begin as number, end: finish as number, parts: parts as string });
  }
  return chunks;
}
