/** A run with everything that it started, directly or through its children. */
import type { ListedRun } from "../kernel/query.ts";
import type { Store } from "../kernel/store.ts";
import { missing } from "./read.ts";
import { pageSize, rowOf, runsOf } from "./runs-of.ts";

export interface RunTree {
  run: ListedRun;
  /** In the order in which they were started. */
  children: RunTree[];
  /** Given when there are more children than were asked for. */
  more?: true;
}

/** @throws RUN_NOT_FOUND, RUN_PURGED */
export async function treeOf(store: Store, runId: string, limit: number): Promise<RunTree> {
  const run = await rowOf(store, runId);
  if (!run) throw await missing(store, runId);
  const root: RunTree = { run, children: [] };
  let left = limit - 1;
  // Breadth first: when there are too many, it is the deepest that are left out.
  const nodes = [root];
  for (const node of nodes) {
    const limit = Math.min(pageSize, left + 1);
    for await (const child of runsOf(store, { parentRunId: node.run.runId, order: "oldest", limit })) {
      if (left === 0) {
        node.more = true;
        break;
      }
      left -= 1;
      const entry: RunTree = { run: child, children: [] };
      node.children.push(entry);
      nodes.push(entry);
    }
  }
  return root;
}
