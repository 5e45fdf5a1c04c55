/** What `output` asked for, out of what the model wrote. */
import { AbstractRuntimeError, type ArtifactAccess, isError, type Json, type JsonSchema, schemaProblem } from "../../index.ts";
import { referencesIn } from "../tools/result.ts";
import { storable, type ModelAnswer } from "./model.ts";

/**
 * The data in an answer, or null where the model asks for tools first.
 *
 * @throws LLM_OUTPUT_INVALID, which is tried again: the next answer may fit.
 */
export async function dataOf({ content, toolCalls, model }: ModelAnswer, output: JsonSchema): Promise<Json> {
  if (content === null && toolCalls.length > 0) return null;
  const text = content ?? "";
  const data = storable(withoutFence(text));
  if (data === undefined && toolCalls.length > 0) return null;
  const problem = data === undefined ? "it is not JSON" : await schemaProblem(output, data);
  if (data !== undefined && problem === undefined) return data;
  const shown = text.length > longestShown ? `${text.slice(0, longestShown)}...` : text;
  throw new AbstractRuntimeError("LLM_OUTPUT_INVALID", { model: model ?? "", problem: `${problem}. It gave: ${shown}` });
}

/**
 * Models write JSON, and what looks like a reference to an artifact is one: where there is none, the run could not go on.
 *
 * @throws LLM_OUTPUT_INVALID
 */
export async function checkReferences(
  { data, toolCalls, parts, model }: ModelAnswer & { data: Json },
  artifacts: () => Pick<ArtifactAccess, "open">,
): Promise<void> {
  const given = [data, ...toolCalls.map((call) => call.arguments), ...((parts ?? []) as unknown as Json[])];
  for (const reference of referencesIn(given)) {
    try {
      await artifacts().open(reference);
    } catch (cause) {
      if (!isError(cause, "ARTIFACT_MISSING")) throw cause;
      const problem = `it refers to an artifact that does not exist, ${reference.$artifact}`;
      throw new AbstractRuntimeError("LLM_OUTPUT_INVALID", { model: model ?? "", problem }, cause);
    }
  }
}

const longestShown = 200;

/** Models like to put JSON into a block of Markdown. */
function withoutFence(text: string): string {
  const trimmed = text.trim();
  if (!trimmed.startsWith("```") || !trimmed.endsWith("```")) return trimmed;
  return trimmed.slice(Math.max(0, trimmed.indexOf("\n")), -3);
}
