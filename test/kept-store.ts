import type { Store } from "../src/index.ts";
import { faultyStore } from "../src/testing/faulty-store.ts";
import { callStore, wrapStore } from "../src/testing/wrap-store.ts";

/** Runtimes close their store; this one outlives them. */
export function keptStore(store: Store): Store {
  return { ...faultyStore(store, []), close: async () => undefined };
}

/** As `keptStore`, and nobody is told anything by it: hints may be lost. */
export function deafStore(store: Store): Store {
  return wrapStore(store, async (method, args) => (method === "close" ? undefined : callStore(store, method, args)));
}
