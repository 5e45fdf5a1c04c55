// What is delivered while a run is being driven elsewhere.
import { expect, test } from "vitest";
import { any, askUser, complete, createRuntime, defineEffect, defineWorkflow } from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { testClock } from "../../src/testing/index.ts";
import { deafStore } from "../kept-store.ts";

test("an answer from another process is taken while another effect of the run executes", async () => {
  const clock = testClock();
  const shared = memoryStore({ clock });
  const slow = defineEffect("slow", {
    run: (_, { signal }) => new Promise((_, reject) => signal.addEventListener("abort", reject)),
  });
  const workflow = defineWorkflow({
    id: "race",
    effects: [slow],
    entry: "start",
    nodes: {
      start: () => any([slow({}), askUser({ prompt: "Stop?" })], { resultKey: "first", nextNode: "end" }),
      end: ({ vars }) => complete(vars.first),
    },
  });
  // Two runtimes that know nothing of each other, over one store that both leave open.
  const kept = deafStore(shared);
  const open = () => createRuntime({ workflows: [workflow], store: kept, clock });
  const driving = await open();
  const answering = await open();
  const { runId } = await driving.start(workflow);
  await clock.advance(10);
  await answering.respond(runId, "yes");
  expect((await driving.get(runId)).status).toBe("running");
  await clock.advance(1_000);
  expect((await driving.get(runId)).output).toEqual({ index: 1, result: { text: "yes" } });
  await driving.stop();
  await answering.stop();
  await shared.close();
});
