/** Every run of a query, page by page. */
import type { ListedRun, RunQuery } from "../kernel/query.ts";
import type { Store } from "../kernel/store.ts";

const pageSize = 1_000;

export async function* runsOf(store: Pick<Store, "query">, query: RunQuery): AsyncGenerator<ListedRun> {
  for (let { cursor } = query; ; ) {
    const { runs, next } = await store.query({ ...query, limit: pageSize, ...(cursor === undefined ? {} : { cursor }) });
    yield* runs;
    if (next === undefined) return;
    cursor = next;
  }
}
