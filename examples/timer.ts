// A run that sleeps. While it sleeps it is a row in a file: no timer, no promise, no process. Whoever opens the file
// when its moment has come wakes it.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { complete, createRuntime, defineWorkflow, sleep, type } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";

const reminder = defineWorkflow({
  id: "reminder",
  vars: type<{ about: string; woke?: { until: string } }>(),
  entry: "rest",
  nodes: {
    // Could as well be { days: 30 }, or waitUntil("2027-01-31T09:00:00Z").
    rest: () => sleep({ seconds: 1 }, { resultKey: "woke", nextNode: "remind" }),
    remind: ({ vars }) => complete({ remember: vars.about, at: vars.woke?.until }),
  },
});

const directory = mkdtempSync(join(tmpdir(), "timer-"));
const open = async () => createRuntime({ workflows: [reminder], store: await sqliteStore(join(directory, "runs.db")) });
let runId: string;
let moment: number;
{
  await using runtime = await open();
  const run = await runtime.run(reminder, { vars: { about: "water the plants" } });
  ({ runId } = run);
  moment = run.wakeAt ?? 0;
  console.log(`${run.status} until ${new Date(moment).toISOString()}`);
} // Closed here. Nothing of the run is left in this process.
{
  await using runtime = await open();
  console.log("output:", await runtime.result(runId)); // Its moment was recorded, so it is kept, not begun anew.
  const [, , woken] = await runtime.ledger(runId);
  console.log(`woken ${(woken?.at ?? 0) - moment} ms after that moment`);
}
rmSync(directory, { recursive: true });
