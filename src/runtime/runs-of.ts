/** Every run of a query, page by page, and the row of one. */
import type { ListedRun, RunQuery } from "../kernel/query.ts";
import { checkRunId } from "../kernel/run-id.ts";
import type { Store } from "../kernel/store.ts";

export const pageSize = 1_000;

export async function* runsOf(store: Pick<Store, "query">, query: RunQuery): AsyncGenerator<ListedRun> {
  for (let { cursor } = query; ; ) {
    const { runs, next } = await store.query({ limit: pageSize, ...query, ...(cursor === undefined ? {} : { cursor }) });
    yield* runs;
    if (next === undefined) return;
    cursor = next;
  }
}

/** The row of one run, or undefined when there is none. */
export async function rowOf(store: Store, runId: string): Promise<ListedRun | undefined> {
  checkRunId(runId);
  // Ids that begin with it are few, and others than itself fewer.
  for await (const run of runsOf(store, { idPrefix: runId, order: "oldest" })) if (run.runId === runId) return run;
  return undefined;
}
