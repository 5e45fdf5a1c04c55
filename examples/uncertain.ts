// A letter that may or may not have been posted. Nothing can look that up, so the run asks a person: send it again, or say
// what became of it. Without arguments it does both for you, in a temporary directory.
//   node examples/uncertain.ts send RUN                           the first time it dies, the second time it asks
//   node examples/uncertain.ts answer RUN '{"retry":true}'        nothing was posted: send it again
//   node examples/uncertain.ts answer RUN '{"result":"posted"}'   it was posted: go on with this result
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { complete, createRuntime, defineEffect, defineWorkflow, type } from "abstractruntime";

const post = defineEffect("post", {
  input: type<{ to: string }>(),
  onUncertain: "ask",
  run: (_, { attempt }) => {
    console.log(`posting, attempt ${attempt}`);
    if (attempt === 1) process.kill(process.pid, "SIGKILL");
    return "posted again";
  },
});

const letter = defineWorkflow({
  id: "letter",
  vars: type<{ to: string; outcome?: string }>(),
  entry: "send",
  effects: [post],
  nodes: {
    send: ({ vars }) => post({ to: vars.to }, { resultKey: "outcome", nextNode: "done" }),
    done: ({ vars }) => complete({ to: vars.to, outcome: vars.outcome }),
  },
});

const [command, runId = "", answer = ""] = process.argv.slice(2);
if (command === "send") {
  await using runtime = await createRuntime({ workflows: [letter] });
  const run = await runtime.run(letter, { runId, vars: { to: "Ada" } });
  console.log(`${run.status}: ${run.waits[0]?.prompt}`);
} else if (command === "answer") {
  await using runtime = await createRuntime({ workflows: [letter] });
  await runtime.respond(runId, JSON.parse(answer));
  console.log("output:", await runtime.result(runId));
} else {
  const cwd = mkdtempSync(join(tmpdir(), "uncertain-"));
  const start = (...words: string[]) => {
    const command = [...process.execArgv, import.meta.filename, ...words];
    const { signal, stdout } = spawnSync(process.execPath, command, { cwd, encoding: "utf8" });
    console.log(`$ uncertain.ts ${words.join(" ")}\n${stdout}${signal ? `(killed by ${signal})\n` : ""}`);
  };
  for (const [run, said] of Object.entries({ "letter-1": '{"result":"posted"}', "letter-2": '{"retry":true}' })) {
    start("send", run);
    start("send", run);
    start("answer", run, said);
  }
  rmSync(cwd, { recursive: true });
}
