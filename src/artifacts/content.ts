/** What may be put, as chunks of bytes. */
import type { ArtifactContent } from "../kernel/artifact.ts";
import { type AbstractRuntimeError, invalidOption } from "../kernel/errors.ts";

const textType = "text/plain; charset=utf-8";
const bytesType = "application/octet-stream";

/** @throws INVALID_OPTION */
export function defaultContentType(content: ArtifactContent): string {
  if (typeof content === "string") return textType;
  if (content instanceof Uint8Array || Symbol.asyncIterator in Object(content)) return bytesType;
  throw invalid("content is a text, a Uint8Array, or a stream of those");
}

/** The content, when all of it is here. @throws INVALID_OPTION */
export function bytesOf(content: ArtifactContent): Uint8Array | undefined {
  if (typeof content === "string") return utf8(content);
  return content instanceof Uint8Array ? content : undefined;
}

/** @throws INVALID_OPTION when the stream gives something else than bytes or well-formed text. */
export async function* chunksOf(content: ArtifactContent): AsyncGenerator<Uint8Array> {
  const bytes = bytesOf(content);
  if (bytes) {
    yield bytes;
    return;
  }
  // A text may be cut in the middle of a character: its first half waits for the other.
  let half = "";
  for await (const chunk of content as AsyncIterable<unknown>) {
    if (typeof chunk === "string") {
      const text = half + chunk;
      half = /[\ud800-\udbff]$/.test(text) ? text.slice(-1) : "";
      yield utf8(half === "" ? text : text.slice(0, -1));
    } else if (!(chunk instanceof Uint8Array)) {
      throw invalid(`content gave a ${chunk === null ? "null" : typeof chunk}, not bytes or text`);
    } else if (half === "") {
      yield chunk;
    } else break;
  }
  utf8(half);
}

/** @throws INVALID_OPTION for half of a surrogate pair, which has no UTF-8: other bytes would stand for it. */
function utf8(text: string): Uint8Array {
  if (text.isWellFormed()) return Buffer.from(text);
  throw invalid("content is text with half of a surrogate pair, which is no character: put it as bytes");
}

function invalid(problem: string): AbstractRuntimeError<"INVALID_OPTION"> {
  return invalidOption("content", problem);
}
