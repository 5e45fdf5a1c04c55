/** A process that drives a run whose effect streams for ever, until it is killed. */
import { createRuntime } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { endless, heldSay } from "./watch-endless.ts";

const [file = "", runId = ""] = process.argv.slice(2);
heldSay.act.now = async ({ stream }) => {
  for (let i = 0; ; i++) {
    stream({ type: "text", text: `${i} ` });
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
};
const runtime = await createRuntime({ store: await sqliteStore(file), workflows: [endless] });
await runtime.start(endless, { runId });
