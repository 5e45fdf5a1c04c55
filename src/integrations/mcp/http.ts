/** A server over streamable HTTP: with its headers on every request, and no more of each answer than a message may have. */
import type { StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { largestMessage } from "./limits.ts";
import type { Sdk } from "./sdk.ts";
import type { Secrets } from "./secrets.ts";
import type { HeaderSource, HttpServerOptions } from "./server-options.ts";

/** @param onStreamEnd Is called in the context of a request whose stream of answers ended, with its answer or without. */
export function httpTransport(
  { client }: Sdk,
  { url, headers = {} }: HttpServerOptions,
  secrets: Secrets,
  onStreamEnd: () => void,
): StreamableHTTPClientTransport {
  const transport = new client.StreamableHTTPClientTransport(new URL(url), { fetch: fetchWith(headers, secrets) });
  const send = transport.send.bind(transport);
  // The client would wait for an answer that cannot come any more until its time is over.
  transport.send = (message, options) =>
    send(message, {
      ...options,
      onRequestStreamEnd: () => {
        options?.onRequestStreamEnd?.();
        onStreamEnd();
      },
    });
  return transport;
}

function fetchWith(source: HeaderSource, secrets: Secrets): typeof fetch {
  return async (url, init) => {
    const given = typeof source === "function" ? await source() : source;
    if (typeof source === "function") secrets.addFetched(given);
    const headers = new Headers(init?.headers);
    for (const [name, value] of Object.entries(given)) headers.set(name, value);
    return limited(await fetch(url, { ...init, headers }));
  };
}

/** An answer that is too large breaks off. A stream is counted from event to event, which an empty line separates. */
function limited(response: Response): Response {
  if (!response.body) return response;
  const hasEvents = response.headers.get("content-type")?.startsWith("text/event-stream") === true;
  let bytes = 0;
  let isLineEmpty = true;
  const count = (chunk: Uint8Array): void => {
    if (!hasEvents) {
      bytes += chunk.length;
      return;
    }
    for (const byte of chunk) {
      bytes += 1;
      if (byte === 13) continue;
      if (byte === 10 && isLineEmpty) bytes = 0;
      isLineEmpty = byte === 10;
    }
  };
  const body = response.body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        count(chunk);
        if (bytes <= largestMessage) controller.enqueue(chunk);
        else controller.error(new Error(`a message has more than ${largestMessage} bytes`));
      },
    }),
  );
  const { status, statusText, headers } = response;
  return new Response(body, { status, statusText, headers });
}
