import type { ListedRun, Runtime, RunQuery } from "../index.ts";

/** Every run of a query, page by page. */
export async function* runsOf(runtime: Runtime, query: RunQuery): AsyncGenerator<ListedRun> {
  for (let { cursor } = query; ; ) {
    const { runs, next } = await runtime.list({ limit: 1_000, ...query, ...(cursor === undefined ? {} : { cursor }) });
    yield* runs;
    if (next === undefined) return;
    cursor = next;
  }
}
