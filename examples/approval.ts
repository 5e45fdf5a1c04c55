// A run that waits for a person, across two processes. The runs are kept in ./.abstractruntime/.
//
//   node examples/approval.ts ask               starts a run and exits while it waits
//   node examples/approval.ts answer RUN yes    a second process, hours or months later: answers and prints the output
//   node examples/approval.ts                   does both, each in a process of its own, in a temporary directory
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRuntime } from "abstractruntime";
import { publish } from "./publish.ts";

const [command = "both", ...rest] = process.argv.slice(2);

async function ask(): Promise<void> {
  await using runtime = await createRuntime({ workflows: [publish] });
  const run = await runtime.run(publish, { vars: { topic: "Durability" } });
  console.log(`run ${run.runId} is ${run.status}: ${run.waits[0]?.prompt}`);
}

async function answer(runId: string, text: string): Promise<void> {
  await using runtime = await createRuntime({ workflows: [publish] });
  // Durable when it resolves. An answer that is not among the choices is refused, and the run still waits.
  await runtime.respond(runId, { text });
  console.log("output:", await runtime.result(runId));
}

function both(): void {
  const directory = mkdtempSync(join(tmpdir(), "approval-"));
  const start = (...words: string[]) => {
    console.log(`$ approval.ts ${words.join(" ")}`);
    const command = [...process.execArgv, import.meta.filename, ...words];
    const output = execFileSync(process.execPath, command, { cwd: directory, encoding: "utf8" });
    console.log(output);
    return output;
  };
  const runId = /run (\S+)/.exec(start("ask"))?.[1] as string;
  start("answer", runId, "yes");
  rmSync(directory, { recursive: true });
}

if (command === "ask") await ask();
else if (command === "answer") await answer(rest[0] ?? "", rest[1] ?? "");
else both();
