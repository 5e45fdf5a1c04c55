/**
 * Texts that the runtime has put beside the ledger, because they are long, put back where a model is to read them. What stands in
 * the arguments of tools, and in what these gave as data, stays a reference.
 */
import { type ArtifactAccess, isArtifactRef } from "../../index.ts";
import type { Message, Part } from "./message.ts";
import type { LlmRequest } from "./request.ts";

type Asked = Pick<LlmRequest, "system" | "messages">;

export async function withTexts<T extends Asked>(asked: T, artifacts: () => ArtifactAccess): Promise<T> {
  const text = async <Value>(value: Value): Promise<Value> =>
    isArtifactRef(value) ? ((await (await artifacts().open(value)).text()) as Value) : value;
  const part = async (given: Part): Promise<Part> => {
    if (given.type === "text" || given.type === "reasoning") return { ...given, text: await text(given.text) };
    if (given.type === "file") return { ...given, data: await text(given.data) };
    if (given.type !== "tool-result" || (given.output.type !== "text" && given.output.type !== "error-text")) return given;
    return { ...given, output: { ...given.output, value: await text(given.output.value) } };
  };
  const message = async (given: Message): Promise<Message> => {
    const content = Array.isArray(given.content) ? await Promise.all(given.content.map(part)) : await text(given.content);
    return { ...given, content } as Message;
  };
  const refers = isArtifactRef(asked.system) || asked.messages.some(hasReference);
  if (!refers) return asked;
  return { ...asked, system: await text(asked.system), messages: await Promise.all(asked.messages.map(message)) };
}

/** Looked for first: nearly always there is none. */
function hasReference({ content }: Message): boolean {
  if (!Array.isArray(content)) return isArtifactRef(content);
  return content.some((part: Part) => {
    if (part.type === "tool-result") return isArtifactRef(part.output.value);
    return isArtifactRef("text" in part ? part.text : "data" in part ? part.data : undefined);
  });
}
