/** A store made of one function that sees every call. */
import type { Store } from "../kernel/store.ts";

/** The calls of a store: what answers with a promise. */
export type StoreMethod = {
  [Name in keyof Store]-?: Store[Name] extends (...args: never[]) => Promise<unknown> ? Name : never;
}[keyof Store];

/** @param inner Whose name and blobs it has. */
export function wrapStore(
  { name, blobs }: Pick<Store, "name" | "blobs">,
  forward: (method: StoreMethod, args: readonly unknown[]) => Promise<unknown>,
): Store {
  const methods = Object.keys(forwarded) as StoreMethod[];
  const wrapped = methods.map((method) => [method, (...args: unknown[]) => forward(method, args)]);
  // Nobody is told anything: hints may be lost.
  return { ...Object.fromEntries(wrapped), name, blobs, hear: () => () => undefined };
}

export function callStore(store: Store, method: StoreMethod, args: readonly unknown[]): Promise<unknown> {
  return (store[method] as (...args: readonly unknown[]) => Promise<unknown>).apply(store, args as unknown[]);
}

/** The compiler sees to it that none is missing. */
const forwarded: Record<StoreMethod, true> = {
  renew: true,
  retire: true,
  create: true,
  commit: true,
  deliver: true,
  claim: true,
  release: true,
  lift: true,
  nextDue: true,
  mail: true,
  news: true,
  listeners: true,
  load: true,
  records: true,
  checkpoints: true,
  query: true,
  count: true,
  appendStream: true,
  stream: true,
  putArtifact: true,
  keepArtifact: true,
  artifact: true,
  artifacts: true,
  dropArtifacts: true,
  sweepArtifacts: true,
  saveSnapshot: true,
  snapshot: true,
  snapshots: true,
  deleteSnapshot: true,
  purge: true,
  tombstone: true,
  fence: true,
  copyOf: true,
  adopt: true,
  adoptRecords: true,
  settle: true,
  moves: true,
  reserve: true,
  counters: true,
  stats: true,
  close: true,
};
