/** Deletes what nobody refers to. */
import type { BlobStore } from "../kernel/artifact-row.ts";
import type { Store } from "../kernel/store.ts";

export interface Swept {
  /** Artifacts that were forgotten. */
  artifacts: number;
  /** Their bytes. */
  sizeBytes: number;
  /** Blobs that unfinished puts or sweeps had left. */
  leftovers: number;
}

const atOnce = 100;

/** @param leftoverMs A blob that nobody knows is a leftover when it is older than this. @param writing Keys that are being written. */
export async function sweep(
  { store, blobs, now }: { store: Store; blobs: BlobStore; now(): number },
  leftoverMs: number,
  writing: ReadonlySet<string>,
): Promise<Swept> {
  const swept: Swept = { artifacts: 0, sizeBytes: 0, leftovers: 0 };
  for (let more = true; more; ) {
    const forgotten = await store.sweepArtifacts(atOnce);
    for (const { blob, sizeBytes } of forgotten) {
      await blobs.delete(blob);
      swept.artifacts += 1;
      swept.sizeBytes += sizeBytes;
    }
    more = forgotten.length === atOnce;
  }
  const before = now() - leftoverMs;
  let old: string[] = [];
  const removeUnknown = async (): Promise<void> => {
    const { artifacts } = await store.artifacts({ blobs: old, limit: old.length });
    const known = new Set(artifacts.map(({ blob }) => blob));
    for (const key of old) {
      if (known.has(key)) continue;
      await blobs.delete(key);
      swept.leftovers += 1;
    }
    old = [];
  };
  for await (const { key, at } of blobs.list()) {
    if (at >= before || writing.has(key)) continue;
    old.push(key);
    if (old.length === atOnce) await removeUnknown();
  }
  if (old.length > 0) await removeUnknown();
  return swept;
}
