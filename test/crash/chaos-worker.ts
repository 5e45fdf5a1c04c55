/** A worker of the chaos: `chaos-worker.ts ADDRESS SEEN`. It drives until it is killed. */
import { createRuntime } from "abstractruntime";
import { storeAt, userDatabase } from "../stores/user-database.ts";
import { chaosWorkflow } from "./chaos-workflow.ts";

const [address = "", seen = ""] = process.argv.slice(2);
// Where the database is cut off, whoever started this starts another one.
const left = (): never => process.exit(1);
const store = await storeAt(address).catch(left);
const database = await userDatabase(address).catch(left);
await createRuntime({
  store,
  workflows: [chaosWorkflow(seen, database)],
  // On many machines nothing tells of a death but the lease, so it is short here.
  scheduler: { leaseMs: 3_000, pollMs: 200, concurrency: 50 },
});
process.send?.("ready");
// Whoever started it is gone.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
