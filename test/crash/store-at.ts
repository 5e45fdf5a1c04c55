/** The stores that outlive a process, in a directory. */
import type { Clock, Store } from "abstractruntime";
import { filesStore } from "abstractruntime/files";
import { sqliteStore } from "abstractruntime/sqlite";

export const storeKinds = ["sqlite", "files"] as const;
export type StoreKind = (typeof storeKinds)[number];

export function storeAt(kind: StoreKind, directory: string, options: { clock?: Clock } = {}): Promise<Store> {
  return kind === "sqlite" ? sqliteStore(`${directory}/runs.db`, options) : filesStore(`${directory}/runs`, options);
}
