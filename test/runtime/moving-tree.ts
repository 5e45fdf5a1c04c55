// A tree of runs with something of everything, for tests of moving: a parent that asks, waits for an event and for a child, with an
// effect done, an artifact, a snapshot, and mail of all kinds.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import {
  all,
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  type Runtime,
  subworkflow,
  waitEvent,
} from "../../src/index.ts";
import type { Store } from "../../src/index.ts";
import { filesStore } from "../../src/stores/files/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { postgresStore } from "../../src/stores/postgres/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import type { TestClock } from "../../src/testing/index.ts";
import { dropSchema, newSchema, serverUrl } from "../stores/postgres-server.ts";
import { deafStore } from "../kept-store.ts";

/** Idempotency keys under which the outside world was charged. */
export const charged: string[] = [];

const charge = defineEffect("charge", {
  run: (_, { idempotencyKey }) => {
    charged.push(idempotencyKey);
    return { charged: true };
  },
});

export const child = defineWorkflow({
  id: "child",
  entry: "wait",
  nodes: {
    wait: () => waitEvent("go", { resultKey: "got", nextNode: "end" }),
    end: ({ vars }) => complete({ child: vars.got }),
  },
});

export const order = defineWorkflow({
  id: "order",
  index: ["number"],
  effects: [charge],
  entry: "pay",
  nodes: {
    pay: () => charge({}, { resultKey: "receipt", nextNode: "ask" }),
    ask: () =>
      all([askUser({ prompt: "Ship?" }), waitEvent("later"), subworkflow(child, { vars: {} })], {
        resultKey: "answers",
        nextNode: "early",
      }),
    early: () => waitEvent("early", { resultKey: "early", nextNode: "end" }),
    end: ({ vars }) => complete({ receipt: vars.receipt, answers: vars.answers, early: vars.early, photo: vars.photo }),
  },
});

export const workflows = [order, child];

/** A runtime over a store that outlives it, and which drives only what it is told to. */
export function runtimeOver(store: Store, clock: TestClock): Promise<Runtime> {
  const kept = deafStore(store);
  return createRuntime({ workflows, store: kept, clock, scheduler: false });
}

export interface Tree {
  parentId: string;
  childId: string;
  artifact: string;
}

/** Starts the tree and drives it until it waits. */
export async function startTree(store: Store, clock: TestClock): Promise<Tree> {
  const runtime = await runtimeOver(store, clock);
  const photo = await runtime.artifacts.put("the bytes of a photo", { tags: { kind: "photo" } });
  const parentId = "parent";
  await runtime.start(order, { runId: parentId, vars: { number: 7, photo }, tags: ["vip"] });
  await runtime.tick(parentId);
  const { runs } = await runtime.list({ parentRunId: parentId });
  const childId = runs[0]?.runId as string;
  await runtime.tick(childId);
  await runtime.snapshots.create(parentId, { name: "waiting", snapshotId: "s1" });
  await runtime.signal(parentId, "later", { n: 1 }, { id: "later" });
  await runtime.tick(parentId);
  await runtime.signal(parentId, "early", { n: 2 }, { id: "early", actorId: "ada" });
  await runtime.respond(parentId, "yes");
  await runtime.signal(childId, "go", { n: 3 }, { id: "go" });
  await runtime.stop();
  return { parentId, childId, artifact: photo.$artifact };
}

/** Drives the tree to its end. Answers the parent's output. */
export async function finishTree(store: Store, clock: TestClock, { parentId, childId }: Tree): Promise<unknown> {
  const runtime = await runtimeOver(store, clock);
  try {
    for (const runId of [parentId, childId, parentId]) await runtime.tick(runId);
    return (await runtime.get(parentId)).output;
  } finally {
    await runtime.stop();
  }
}

export type Kind = "memory" | "sqlite" | "files" | "postgres";

export interface Opened {
  store: Store;
  /** Closes the store, where it lasts, and opens it again. */
  reopen(): Promise<Store>;
}

export async function opened(kind: Kind, clock: TestClock): Promise<Opened> {
  if (kind === "memory") {
    const store = memoryStore({ clock });
    onTestFinished(() => store.close());
    return { store, reopen: async () => store };
  }
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  const place = join(directory, "runs");
  const schema = newSchema();
  const open = (): Promise<Store> =>
    kind === "sqlite"
      ? sqliteStore(place, { clock })
      : kind === "files"
        ? filesStore(place, { clock })
        : postgresStore({ connectionString: serverUrl(), schema, clock });
  let store = await open();
  onTestFinished(async () => {
    await store.close();
    rmSync(directory, { recursive: true });
    if (kind === "postgres") await dropSchema(schema);
  });
  return {
    store,
    async reopen() {
      await store.close();
      store = await open();
      return store;
    },
  };
}
