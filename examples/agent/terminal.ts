// Follows a run in the terminal: what the model says while it says it, which tools it calls and what they answer, and questions.
import { isCancel, select, text } from "@clack/prompts";
import { isError, type Run, type Runtime } from "abstractruntime";
import type { LlmResult } from "abstractruntime/llm";
import type { ToolResult } from "abstractruntime/tools";

/** Until the run has ended. */
export async function talk(runtime: Runtime, runId: string): Promise<void> {
  const types = new Map<string, string>();
  let said = "";
  for await (const item of runtime.watch(runId)) {
    if (item.kind === "stream" && item.part.type === "text") {
      process.stdout.write(item.part.text);
      said += item.part.text;
    }
    // The attempt that said this was cut off: it counts no more, and the model is asked again.
    if (item.kind === "reset" && said !== "") {
      console.log(" ...");
      said = "";
    }
    if (item.kind !== "record") continue;
    const { kind, effectId = "", data } = item.record;
    if ("intent" in data && data.intent) types.set(effectId, data.intent.type);
    if (kind === "effect_completed" && "result" in data && types.get(effectId) === "llm_call") {
      const { content, toolCalls } = data.result as unknown as LlmResult;
      // What was said long ago is streamed no more, but stands in the record.
      if (said !== "" || content) console.log(said === "" ? content : "");
      said = "";
      for (const call of toolCalls) console.log(`  -> ${call.name} ${JSON.stringify(call.arguments)}`);
    }
    if ((kind === "effect_completed" || kind === "delivered") && "result" in data && types.get(effectId) === "tool_call") {
      const { name, output, error } = data.result as unknown as ToolResult;
      console.log(`  <- ${name} ${error ? `${error.code}: ${error.message}` : brief(JSON.stringify(output))}`);
    }
    if (kind === "effect_failed" && data.retryAt) console.log(`  (${data.error.message})`);
    if (kind === "parked" && data.wait.reason === "user") await answer(runtime, runId, effectId);
  }
}

/** Answers the question of an effect, or says how. */
async function answer(runtime: Runtime, runId: string, effectId: string): Promise<void> {
  const wait = (await runtime.get(runId)).waits.find((one) => one.effectId === effectId);
  if (!wait) return; // It was answered long ago.
  const payload = await decide(wait);
  if (payload === undefined) {
    console.log(`${wait.prompt} Answer in another terminal, now or in a month:`);
    console.log(`  npm run cli -- respond ${runId} allow --key ${wait.waitKey}`);
    return;
  }
  await runtime.resume(runId, { waitKey: wait.waitKey, payload }).catch((error: unknown) => {
    if (!isError(error, "ALREADY_ANSWERED")) throw error; // Somebody was faster.
  });
}

async function decide({ prompt = "Allow it?" }: Run["waits"][number]) {
  for (const decision of ["allow", "deny"])
    if (process.argv.includes(`--${decision}`)) {
      console.log(`${prompt} ${decision}`);
      return { decision };
    }
  if (!process.stdin.isTTY || !process.stdout.isTTY) return undefined;
  const options = ["allow", "deny"].map((value) => ({ value, label: value }));
  const decision = unlessCancelled(await select({ message: prompt, options }));
  if (decision === "allow") return { decision };
  const reason = unlessCancelled(await text({ message: "Why not? The model is told.", defaultValue: "no reason given" }));
  return { decision, reason };
}

/** Ctrl-C at a question ends the process, as it does anywhere else. */
function unlessCancelled(answer: string | symbol): string {
  if (!isCancel(answer)) return answer as string;
  process.exit(130);
}

function brief(text: string): string {
  return text.length > 100 ? `${text.slice(0, 97)}...` : text;
}
