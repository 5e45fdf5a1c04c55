// Who caused what: on the run, and on the record of each message.
import { expect, test } from "vitest";
import { askUser, complete, createRuntime, defineWorkflow, waitEvent } from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { testClock } from "../../src/testing/index.ts";

const approval = defineWorkflow({
  id: "approval",
  entry: "ask",
  nodes: {
    ask: () => askUser({ prompt: "Publish?" }, { resultKey: "answer", nextNode: "wait" }),
    wait: () => waitEvent("go", { resultKey: "go", nextNode: "end" }),
    end: ({ vars }) => complete(vars.answer),
  },
});

test("a record says who sent what it took, and otherwise who caused the run", async () => {
  const clock = testClock();
  await using runtime = await createRuntime({ workflows: [approval], store: memoryStore({ clock }), clock, scheduler: false });
  const { runId } = await runtime.run(approval, { actorId: "ar_owner" });
  await runtime.respond(runId, "yes", { actorId: "ar_editor" });
  await runtime.tick(runId);
  await runtime.pause(runId, { actorId: "ar_operator" });
  await runtime.tick(runId);
  await runtime.unpause(runId);
  await runtime.signal(runId, "go", 1, { actorId: "ar_clock" });
  expect((await runtime.tick(runId)).status).toBe("completed");
  const actors = (await runtime.ledger(runId)).map(({ kind, actorId }) => [kind, actorId]);
  expect(actors).toEqual([
    ["run_started", "ar_owner"],
    ["parked", "ar_owner"],
    ["delivered", "ar_editor"],
    ["parked", "ar_owner"],
    ["control", "ar_operator"],
    ["control", "ar_owner"],
    ["delivered", "ar_clock"],
    ["run_completed", "ar_owner"],
  ]);
  expect((await runtime.verify(runId)).ok).toBe(true);
});

test("an actor that is no text is refused before anything is sent", async () => {
  const clock = testClock();
  await using runtime = await createRuntime({ workflows: [approval], store: memoryStore({ clock }), clock, scheduler: false });
  const { runId } = await runtime.run(approval);
  for (const actorId of ["", 5 as never, "\ud800"])
    await expect(runtime.respond(runId, "yes", { actorId })).rejects.toMatchObject({ code: "INVALID_OPTION" });
  expect((await runtime.get(runId)).waits).toHaveLength(1);
});
