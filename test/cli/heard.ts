import type { RecordKind, Runtime } from "abstractruntime";

/** Resolves when a record of a kind has become durable in this runtime, from now on. */
export function heard(runtime: Runtime, kind: RecordKind): Promise<void> {
  return new Promise((resolve) => {
    const off = runtime.on("record", (record) => {
      if (record.kind !== kind) return;
      off();
      resolve();
    });
  });
}
