/** What a tool gave, as JSON for records and models. Bytes that are more than a few become artifacts. */
import type { CallToolResult, ContentBlock } from "@modelcontextprotocol/client";
import type { EffectContext, Json, JsonObject } from "../../index.ts";
import { largestInlineBytes, largestInlineText } from "./limits.ts";
import type { Secrets } from "./secrets.ts";

/** Where results go. */
type Place = Pick<EffectContext, "artifacts" | "limits">;

/**
 * Structured content as it is; texts as one text; where there is anything else, a list of parts: `{ type: "text", text }`,
 * `{ type: "json", value }`, `{ type: "image" | "audio", mediaType, data | artifact }`, `{ type: "resource", uri, mediaType?, text | data
 * | artifact }` and `{ type: "resource_link", uri, name, ... }`. `data` is base64.
 */
export async function outputOf(result: CallToolResult, context: Place, secrets: Secrets): Promise<Json> {
  const { content: blocks = [], structuredContent } = result;
  const isText = blocks.every(({ type }) => type === "text");
  if (isText && structuredContent !== undefined) return secrets.scrubJson(structuredContent as Json);
  const parts: Json[] = [];
  for (const block of blocks) parts.push(await partOf(block, context, secrets));
  if (!isText)
    return structuredContent === undefined
      ? parts
      : [...parts, secrets.scrubJson({ type: "json", value: structuredContent as Json })];
  if (parts.length === 0) return null;
  const texts = parts.map((part) => (part as { text?: string }).text);
  return texts.every((text) => text !== undefined) ? texts.join("\n") : parts;
}

/** The texts alone: what a failed tool says. */
export function textOf({ content = [] }: CallToolResult): string {
  return content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("\n");
}

async function partOf(block: ContentBlock, context: Place, secrets: Secrets): Promise<JsonObject> {
  switch (block.type) {
    case "text":
      return { type: "text", ...(await textMember(secrets.scrub(block.text), "text/plain; charset=utf-8", context)) };
    case "image":
    case "audio": {
      const mediaType = secrets.scrub(block.mimeType);
      return { type: block.type, mediaType, ...(await bytesMember(block.data, mediaType, context)) };
    }
    case "resource": {
      const { resource } = block;
      const mediaType = resource.mimeType === undefined ? undefined : secrets.scrub(resource.mimeType);
      const content =
        "text" in resource
          ? await textMember(secrets.scrub(resource.text), mediaType ?? "text/plain; charset=utf-8", context)
          : await bytesMember(resource.blob, mediaType ?? "application/octet-stream", context);
      return {
        type: "resource",
        uri: secrets.scrub(resource.uri),
        ...(mediaType === undefined ? {} : { mediaType }),
        ...content,
      };
    }
    case "resource_link": {
      const { type, uri, name, title, description, mimeType, size } = block;
      const link = {
        type,
        uri,
        name,
        ...(title === undefined ? {} : { title }),
        ...(description === undefined ? {} : { description }),
        ...(mimeType === undefined ? {} : { mediaType: mimeType }),
        ...(size === undefined ? {} : { sizeBytes: size }),
      };
      return secrets.scrubJson(link);
    }
    default:
      // A newer revision's kind of content.
      return secrets.scrubJson(block as JsonObject);
  }
}

async function textMember(text: string, contentType: string, context: Place): Promise<JsonObject> {
  if (text.length <= largestInlineText || staysWhole(context)) return { text };
  return { artifact: await context.artifacts.put(text, { contentType }) };
}

async function bytesMember(data: string, contentType: string, context: Place): Promise<JsonObject> {
  const bytes = Buffer.from(data, "base64");
  if (bytes.length <= largestInlineBytes || staysWhole(context)) return { data };
  return { artifact: await context.artifacts.put(bytes, { contentType }) };
}

/** As at a worker, whose results go to where nobody knows its artifacts. */
function staysWhole({ limits }: Place): boolean {
  return limits.offloadBytes === Number.POSITIVE_INFINITY;
}
