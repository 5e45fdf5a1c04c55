/** The artifacts that a message refers to: it may lie in a mailbox for longer than what was put is kept. */
import type { DriveHost } from "../kernel/drive-host.ts";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { Json } from "../kernel/json.ts";
import { type Look, look } from "../kernel/offload.ts";

/**
 * Keeps them for as long as the runs.
 *
 * @param transaction The caller's own holds the store: then it is only looked whether they are known.
 * @throws ARTIFACT_MISSING, RUN_NOT_FOUND
 */
export async function keepReferred(
  { store, artifacts }: Pick<DriveHost, "store" | "artifacts">,
  runIds: readonly string[],
  payload: Json,
  transaction?: unknown,
): Promise<void> {
  const found: Look = { large: false, ids: undefined, size: 0 };
  look(payload, Number.POSITIVE_INFINITY, found);
  for (const artifactId of found.ids ?? []) {
    for (const runId of runIds) {
      const isKnown =
        transaction === undefined ? await artifacts.keep(artifactId, 0, runId) : (await store.artifact(artifactId)) !== undefined;
      if (!isKnown) throw new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId, runId });
    }
  }
}
