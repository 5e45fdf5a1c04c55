/** Chunks of streams: kept for a while, and given page by page. */
import type { StreamChunk, StreamFrom } from "../../kernel/stream.ts";
import { chunkPage } from "../paging.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { arrayOf, encode } from "./encode.ts";

/** In a transaction. Rows of runs are locked so that none is removed meanwhile; whoever moves one is not in the way. */
export async function appendStream(
  statements: Statements,
  client: PostgresClient,
  chunks: readonly StreamChunk[],
): Promise<void> {
  const column = (value: (chunk: StreamChunk) => string | number): string => arrayOf(chunks.map(value));
  const insert = `WITH named AS MATERIALIZED (
      SELECT run, run_id FROM ~runs WHERE run_id = ANY ($1::text[]) ORDER BY run_id FOR KEY SHARE)
    INSERT INTO ~streams SELECT named.run, given.step, given.effect_id, given.attempt, given.begin, given.finish, given.parts
      FROM unnest($1::text[], $2::int[], $3::text[], $4::int[], $5::bigint[], $6::bigint[], $7::text[])
        AS given (run_id, step, effect_id, attempt, begin, finish, parts) JOIN named USING (run_id)
      ORDER BY named.run, given.step, given.effect_id, given.attempt, given.begin
      ON CONFLICT DO NOTHING`;
  await statements.rows(client, insert, [
    column(({ runId }) => runId),
    column(({ step }) => step),
    column(({ effectId }) => effectId),
    column(({ attempt }) => attempt),
    column(({ offset }) => offset),
    column(({ end }) => end),
    column(({ parts }) => parts),
  ]);
  // All but those of the last two steps that streamed.
  const drop = `DELETE FROM ~streams AS old USING (SELECT run FROM ~runs WHERE run_id = ANY ($1::text[])) AS named
    WHERE old.run = named.run AND step < (SELECT max(step) FROM ~streams AS s WHERE s.run = named.run
      AND s.step < (SELECT max(step) FROM ~streams AS t WHERE t.run = named.run))`;
  await statements.rows(client, drop, [arrayOf([...new Set(chunks.map(({ runId }) => runId))])]);
}

export async function readStream(
  statements: Statements,
  client: PostgresClient,
  runId: string,
  from: readonly StreamFrom[],
): Promise<StreamChunk[]> {
  const column = (value: (from: StreamFrom) => string | number): string => arrayOf(from.map(value));
  // The one in which the offset stands is the last that does not begin behind it.
  const sql = `SELECT given.place, chunk.begin, chunk.finish, chunk.parts
    FROM (SELECT run FROM ~runs WHERE run_id = $1) AS named,
      unnest($2::int[], $3::text[], $4::int[], $5::bigint[]) WITH ORDINALITY AS given (step, effect_id, attempt, begin, place),
      LATERAL (SELECT s.begin, s.finish, s.parts FROM ~streams AS s
        WHERE s.run = named.run AND s.step = given.step AND s.effect_id = given.effect_id AND s.attempt = given.attempt
          AND s.finish > given.begin AND s.begin >= coalesce((SELECT max(t.begin) FROM ~streams AS t WHERE t.run = named.run
            AND t.step = given.step AND t.effect_id = given.effect_id AND t.attempt = given.attempt AND t.begin <= given.begin), 0)
        ORDER BY s.begin LIMIT ${chunkPage}) AS chunk
    ORDER BY given.place, chunk.begin LIMIT ${chunkPage}`;
  const rows = await statements.rows(client, sql, [
    encode(runId),
    column(({ step }) => step),
    column(({ effectId }) => effectId),
    column(({ attempt }) => attempt),
    column(({ offset }) => offset),
  ]);
  return rows.map(({ place, begin, finish, parts }) => {
    const { effectId, step, attempt } = from[(place as number) - 1] as StreamFrom;
    return { runId, effectId, step, attempt, offset: begin as number, end: finish as number, parts: parts as string };
  });
}
