/** From what a person types to a run. */
import { AbstractRuntimeError, type Runtime, nearest } from "../index.ts";
import { wrongUse } from "./problem.ts";

const leastCharacters = 4;
const pageSize = 1_000;
const enough = 5;

/**
 * The id of the run that `given` names: its id, or the beginning of one that no other run shares.
 *
 * @throws RUN_NOT_FOUND, INVALID_OPTION when several runs begin so.
 */
export async function findRun(runtime: Runtime, given: string): Promise<string> {
  if ((await runtime.store.records(given, 0, 1)).length > 0) return given;
  const recent: string[] = [];
  const found: string[] = [];
  for (let cursor: string | undefined, first = true; first || cursor !== undefined; first = false) {
    const page = await runtime.list({ limit: pageSize, ...(cursor === undefined ? {} : { cursor }) });
    const ids = page.runs.map(({ runId }) => runId);
    if (first) recent.push(...ids);
    if (given.length < leastCharacters) break;
    found.push(...ids.filter((id) => id.startsWith(given)));
    cursor = found.length < enough ? page.next : undefined;
  }
  const [only, another] = found;
  if (only !== undefined && another === undefined) return only;
  if (another !== undefined) {
    const shown = found.slice(0, enough).join(", ");
    throw wrongUse(
      "RUN",
      `"${given}" is the beginning of several run ids: ${shown}${found.length >= enough ? ", ..." : ""}`,
      "Give more of the id.",
    );
  }
  throw notFound(given, recent);
}

function notFound(given: string, recent: readonly string[]): Error {
  // What was typed may be only a beginning: it is compared with beginnings.
  const beginnings = new Map(recent.map((id) => [id.slice(0, given.length), id]));
  const near = given.length < leastCharacters ? undefined : nearest(given, beginnings.keys());
  const suggestion = near === undefined ? undefined : beginnings.get(near);
  if (given.length < leastCharacters && recent.some((id) => id.startsWith(given))) {
    return wrongUse(
      "RUN",
      `"${given}" is too short for the beginning of a run id`,
      `Give at least ${leastCharacters} characters of it.`,
    );
  }
  return new AbstractRuntimeError("RUN_NOT_FOUND", { runId: given, ...(suggestion === undefined ? {} : { suggestion }) });
}
