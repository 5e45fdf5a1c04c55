/** A run with everything that it started, directly or through its children. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { ListedRun } from "../kernel/query.ts";
import type { Store } from "../kernel/store.ts";
import { runsOf } from "./runs-of.ts";

export interface RunTree {
  run: ListedRun;
  /** In the order in which they were started. */
  children: RunTree[];
  /** Given when there are more children than were asked for. */
  more?: true;
}

const pageSize = 1_000;

/** @throws RUN_NOT_FOUND */
export async function treeOf(store: Store, runId: string, limit: number): Promise<RunTree> {
  const run = await rowOf(store, runId);
  if (!run) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
  const root: RunTree = { run, children: [] };
  let left = limit - 1;
  // Breadth first: when there are too many, it is the deepest that are left out.
  const nodes = [root];
  for (const node of nodes) {
    for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
      const page = await store.query({
        parentRunId: node.run.runId,
        order: "oldest",
        limit: Math.min(pageSize, Math.max(1, left)),
        ...(cursor === undefined ? {} : { cursor }),
      });
      cursor = page.next;
      for (const child of page.runs) {
        if (left <= 0) {
          node.more = true;
          break;
        }
        left -= 1;
        const entry: RunTree = { run: child, children: [] };
        node.children.push(entry);
        nodes.push(entry);
      }
      if (left <= 0 && cursor !== undefined) {
        node.more = true;
        break;
      }
    }
  }
  return root;
}

/** The row of one run, or undefined when there is none. */
export async function rowOf(store: Store, runId: string): Promise<ListedRun | undefined> {
  // Ids that begin with it are few, and others than itself fewer.
  for await (const run of runsOf(store, { idPrefix: runId, order: "oldest" })) if (run.runId === runId) return run;
  return undefined;
}
