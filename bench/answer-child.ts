/** Answers the runs it is told of, with a runtime over the same store that does not have their workflow. */
import { createRuntime } from "abstractruntime";
import type { Answered } from "./answer.ts";
import { openStore } from "./compare.ts";
import { hostMs } from "./processes.ts";

const runtime = await createRuntime({ workflows: [], store: await openStore("sqlite", process.argv[2]!) });
process.on("message", async (message: string) => {
  if (message === "end") {
    await runtime.stop();
    process.disconnect();
    return;
  }
  const began = hostMs();
  await runtime.respond(message, "yes");
  await runtime.result(message);
  process.send?.({ began, known: hostMs() } satisfies Answered);
});
process.send?.("ready");
