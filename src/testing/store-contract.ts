/**
 * The contract of a store as tests: `src/kernel/store.ts`, a test a sentence, S1 to S6 named. Every store runs all of them; there
 * is no skip list.
 */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { BlobStore } from "../kernel/artifact-row.ts";
import type { Store } from "../kernel/store.ts";
import { type TestClock, testClock } from "./clock.ts";
import { artifactCases } from "./contract/artifacts.ts";
import { blobCases } from "./contract/blobs.ts";
import { commitCases } from "./contract/commits.ts";
import { counterCases } from "./contract/counters.ts";
import { countCases } from "./contract/counting.ts";
import { failureCases } from "./contract/failures.ts";
import { hearingCases } from "./contract/hearing.ts";
import { lifetimeCases } from "./contract/lifetime.ts";
import { mailboxCases } from "./contract/mailbox.ts";
import { movingCases } from "./contract/moving.ts";
import { pagingCases } from "./contract/paging.ts";
import { parkingCases } from "./contract/parking.ts";
import { queryCases } from "./contract/querying.ts";
import { queueCases } from "./contract/queues.ts";
import { rangeCases } from "./contract/ranges.ts";
import { readingCases } from "./contract/reading.ts";
import { recallCases } from "./contract/recalls.ts";
import { restoredCases } from "./contract/restored.ts";
import { snapshotCases } from "./contract/snapshots.ts";
import { streamCases } from "./contract/streams.ts";
import { retentionCases } from "./contract/retention.ts";
import { waitCases } from "./contract/waits.ts";
import { workerCases } from "./contract/workers.ts";
import { type Case, World } from "./contract/world.ts";
import { callStore, wrapStore } from "./wrap-store.ts";

/** Opens a new, empty store on the given clock. */
export type OpenStore = (options: { clock: TestClock }) => Promise<OpenedStore>;

export interface OpenedStore {
  store: Store;
  /**
   * Closes the store and opens it again, with the same contents and the same clock. Where it is given, every test runs a second
   * time, with the store reopened before each call that is not made beside another one.
   */
  reopen?(): Promise<Store>;
  /** Closes the store that was opened last, even if a test has closed it, and removes what it left. */
  close(): Promise<void>;
}

/** The part of a test framework that is used. Vitest, node:test, Jest and Mocha have it. */
export interface Suite {
  describe(name: string, body: () => void): unknown;
  it(name: string, test: () => Promise<void>): unknown;
}

/**
 * Declares the tests. Assertions are those of node:assert, so that no test framework is a dependency.
 *
 * ```ts
 * import { describe, it } from "vitest";
 * storeContract("my store", async ({ clock }) => {
 *   const store = await myStore({ clock });
 *   return { store, close: () => store.close() };
 * }, { describe, it });
 * ```
 *
 * @param name Names the store in the report.
 * @param suite Default: the global `describe` and `it`.
 * @throws INVALID_OPTION when there are neither.
 */
export function storeContract(name: string, open: OpenStore, suite: Suite = globalThis as unknown as Suite): void {
  if (typeof suite.describe !== "function" || typeof suite.it !== "function") {
    throw new AbstractRuntimeError("INVALID_OPTION", {
      option: "suite",
      problem: "storeContract() needs a test framework: pass { describe, it } as its third argument",
    });
  }
  const parts = {
    workers: workerCases,
    queues: queueCases,
    commits: commitCases,
    counters: counterCases,
    mailbox: mailboxCases,
    parking: parkingCases,
    recalls: recallCases,
    restored: restoredCases,
    waits: waitCases,
    failures: failureCases,
    hearing: hearingCases,
    reading: readingCases,
    querying: queryCases,
    ranges: rangeCases,
    paging: pagingCases,
    counting: countCases,
    artifacts: artifactCases,
    blobs: blobCases,
    streams: streamCases,
    snapshots: snapshotCases,
    retention: retentionCases,
    moving: movingCases,
    lifetime: lifetimeCases,
  };
  suite.describe(`store contract: ${name}`, () => {
    for (const [part, cases] of Object.entries(parts)) {
      suite.describe(part, () => {
        for (const [sentence, test] of Object.entries(cases)) suite.it(sentence, () => hold(test, open));
      });
    }
  });
}

async function hold(test: Case, open: OpenStore): Promise<void> {
  const hasReopen = await inWorld(test, open, false);
  if (!hasReopen) return;
  try {
    await inWorld(test, open, true);
  } catch (error) {
    if (error instanceof Error) error.message = `When the store is reopened between calls: ${error.message}`;
    throw error;
  }
}

/** Runs a test on a store of its own. Answers whether that store can be reopened. */
async function inWorld(test: Case, open: OpenStore, restless: boolean): Promise<boolean> {
  const clock = testClock();
  const opened = await open({ clock });
  try {
    const store = restless ? restlessStore(opened, clock) : opened.store;
    await test(new World(store, clock, restless ? undefined : opened.reopen?.bind(opened), restless));
  } finally {
    await opened.close();
  }
  return opened.reopen !== undefined;
}

/**
 * Reopens the store before every call, unless another call is under way: nothing that a store promises may be in memory only.
 * Workers that were live are renewed for the time they had left, since a store may take them for dead with the process that closed it.
 */
function restlessStore({ store, reopen }: OpenedStore, clock: TestClock): Store {
  const expiries = new Map<string, number>();
  let current = store;
  let underWay = 0;
  let closed = false;
  let opening: Promise<void> = Promise.resolve();
  const listeners = new Map<object, { heard: () => void; stop: () => void }>();
  const open = async (): Promise<void> => {
    current = await (reopen as () => Promise<Store>)();
    for (const listener of listeners.values()) listener.stop = current.hear(listener.heard);
    for (const [workerId, expiresAt] of expiries) {
      if (expiresAt > clock.now()) await current.renew(workerId, expiresAt - clock.now());
    }
  };
  const begin = (): Promise<void> => {
    if (underWay === 0 && !closed) opening = open();
    underWay += 1;
    return opening;
  };
  const end = (): void => {
    underWay -= 1;
  };
  const blobs = restlessBlobs(store.blobs.name, () => current.blobs, begin, end);
  const wrapped = wrapStore({ name: store.name, blobs }, async (method, args) => {
    const opened = begin();
    closed ||= method === "close";
    if (method === "renew") expiries.set(args[0] as string, clock.now() + (args[1] as number));
    if (method === "retire") expiries.delete(args[0] as string);
    try {
      await opened;
      return await callStore(current, method, args);
    } finally {
      end();
    }
  });
  const hear = (heard: () => void): (() => void) => {
    const key = {};
    listeners.set(key, { heard, stop: current.hear(heard) });
    return () => {
      listeners.get(key)?.stop();
      listeners.delete(key);
    };
  };
  return { ...wrapped, hear };
}

function restlessBlobs(name: string, blobs: () => BlobStore, begin: () => Promise<void>, end: () => void): BlobStore {
  const call = async <T>(action: (blobs: BlobStore) => Promise<T>): Promise<T> => {
    try {
      await begin();
      return await action(blobs());
    } finally {
      end();
    }
  };
  const stream = async function* <T>(source: (blobs: BlobStore) => AsyncIterable<T>): AsyncGenerator<T> {
    try {
      await begin();
      yield* source(blobs());
    } finally {
      end();
    }
  };
  return {
    name,
    write: (key, chunks) => call((inner) => inner.write(key, chunks)),
    read: (key, range) => stream((inner) => inner.read(key, range)),
    delete: (key) => call((inner) => inner.delete(key)),
    list: () => stream((inner) => inner.list()),
  };
}
