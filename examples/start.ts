// What `npm start` runs: a run that waits for a person, closes, opens again, is answered, and shows what it wrote down.
// With a terminal it asks you; without one it answers itself. Its store is a temporary directory.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isCancel, select } from "@clack/prompts";
import { createRuntime, type LedgerRecord } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import Table from "cli-table3";
import { publish } from "./publish.ts";

const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
const open = async () => createRuntime({ workflows: [publish], store: await sqliteStore(join(directory, "runs.db")) });
let runId: string;

{
  await using runtime = await open();
  ({ runId } = await runtime.run(publish, { vars: { topic: "Durability" } }));
  console.log(`Run ${runId} has started.`);
} // The runtime is closed. The run is a row in a file, and would wait there for months.
{
  await using runtime = await open();
  const { status, waits } = await runtime.get(runId);
  const question = waits[0];
  console.log(`The runtime was closed and opened again. The run is ${status}: ${question?.prompt}`);
  const terminal = process.stdin.isTTY && process.stdout.isTTY;
  const text = terminal ? await ask(question?.prompt ?? "", question?.choices ?? []) : "yes";
  if (text === undefined) console.log("Not answered: the run would wait on, if its directory were not removed now.");
  else {
    if (!terminal) console.log("There is no terminal to ask in, so this program answers: yes");
    await runtime.respond(runId, { text });
    console.log("Output:", await runtime.result(runId));
  }

  console.log("\nIts ledger, a line for each thing that happened:");
  const table = new Table({
    head: ["seq", "at (UTC)", "what", "node", "data", "hash"],
    style: { head: [], border: [], compact: true },
  });
  for (const record of await runtime.ledger(runId)) table.push(line(record));
  console.log(table.toString());
  const { ok, records: verified, head, problems } = await runtime.verify(runId);
  if (!ok) throw new Error(`The ledger does not verify: ${JSON.stringify(problems)}`);
  console.log(`Verified: ${verified} records, each with the hash of the one before it; the last is ${head?.slice(0, 16)}.`);
  console.log("Folded again from its first record, the run is what the store says it is.");
}
rmSync(directory, { recursive: true });

async function ask(message: string, choices: readonly string[]): Promise<string | undefined> {
  const answer = await select({ message, options: choices.map((value) => ({ value, label: value })) });
  return isCancel(answer) ? undefined : answer;
}

function line({ seq, at, kind, node, hash, data }: LedgerRecord): (string | number)[] {
  const text = JSON.stringify(data);
  const brief = text.length > 50 ? `${text.slice(0, 47)}...` : text;
  return [seq, new Date(at).toISOString().slice(11, 23), kind, node, brief, hash.slice(0, 8)];
}
