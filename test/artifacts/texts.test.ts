// Texts as artifacts: what stands in a ledger and what stands in bytes are the same characters.
import { complete, createRuntime, defineEffect, defineWorkflow, isArtifactRef, type Runtime } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { afterEach, expect, test } from "vitest";

const opened: Runtime[] = [];
afterEach(async () => {
  for (const runtime of opened.splice(0)) await runtime.stop();
});

async function open(): Promise<Runtime> {
  const runtime = await createRuntime({ store: memoryStore(), scheduler: false });
  opened.push(runtime);
  return runtime;
}

async function* pieces(...chunks: (string | Uint8Array)[]): AsyncGenerator<string | Uint8Array> {
  yield* chunks;
}

const smile = "😀";
const [high, low] = [smile[0] as string, smile[1] as string];

test("a stream of text may be cut in the middle of a character", async () => {
  const { artifacts } = await open();
  for (const chunks of [
    [`a${high}`, `${low}b`],
    [high, low],
    ["a", `${high}`, `${low}${high}`, low, "b"],
  ]) {
    const ref = await artifacts.put(pieces(...chunks));
    expect(await (await artifacts.open(ref)).text()).toBe(chunks.join(""));
  }
});

test("half of a surrogate pair, which has no bytes, is refused", async () => {
  const { artifacts, store } = await open();
  const one = Uint8Array.of(1);
  for (const content of [
    high,
    `a${low}`,
    pieces("a", high),
    pieces(high, "b"),
    pieces(low),
    pieces(high, one),
    pieces(high, high),
  ])
    await expect(artifacts.put(content)).rejects.toMatchObject({ code: "INVALID_OPTION", fields: { option: "content" } });
  await expect(artifacts.storeText(high)).rejects.toMatchObject({ code: "INVALID_OPTION" });
  const left: unknown[] = [];
  for await (const blob of store.blobs.list()) left.push(blob);
  expect(left).toEqual([]);
  // JSON has a spelling for it.
  expect(await artifacts.loadJson((await artifacts.storeJson({ high })).artifactId)).toEqual({ high });
});

test("a large text that is not well-formed stays in the ledger, unchanged", async () => {
  const text = `${"x".repeat(300_000)}${high}`;
  const page = defineEffect("page", { run: async () => ({ text, other: "y".repeat(300_000) }) });
  const workflow = defineWorkflow({
    id: "w",
    effects: [page],
    entry: "get",
    nodes: {
      get: ({ vars }) => {
        vars.own = text;
        return page({}, { resultKey: "page", nextNode: "end" });
      },
      end: ({ vars }) => complete([vars.own, vars.page]),
    },
  });
  const runtime = await open();
  const { output } = await runtime.run(workflow);
  const [own, got] = output as any;
  expect(own === text && got.text === text).toBe(true);
  expect(isArtifactRef(got.other)).toBe(true);
});

test("a result that is large by its escapes becomes an artifact", async () => {
  const parts = Array.from({ length: 10 }, () => "\u0001".repeat(5_000));
  const page = defineEffect("page", { run: async () => parts });
  const workflow = defineWorkflow({
    id: "w",
    effects: [page],
    entry: "get",
    nodes: { get: () => page({}, { resultKey: "page", nextNode: "end" }), end: ({ vars }) => complete(vars.page) },
  });
  const runtime = await open();
  const { output } = await runtime.run(workflow);
  expect(isArtifactRef(output)).toBe(true);
  expect(await (await runtime.artifacts.open(output as any)).json()).toEqual(parts);
});

test("a page of artifacts has a whole number of them", async () => {
  const { artifacts } = await open();
  await artifacts.put("a");
  for (const limit of [0, -1, 1.5, Number.NaN, "x" as never])
    await expect(artifacts.listAll({ limit })).rejects.toMatchObject({ code: "INVALID_OPTION", fields: { option: "limit" } });
  expect(await artifacts.listAll({ limit: Number.POSITIVE_INFINITY })).toHaveLength(1);
});
