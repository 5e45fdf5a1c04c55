// A server that speaks the language of OpenAI's chat completions and says what a script says: stands for the real one.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { json } from "node:stream/consumers";
import type { Said, Script } from "./scripted-model.ts";

interface ChatRequest {
  model: string;
  stream?: boolean;
  messages: { role: string; content: string | null }[];
}

/** On a free port of this machine. */
export async function modelServer(script: Script, apiKey: string) {
  const server = createServer(async (request, response) => {
    if (request.headers.authorization !== `Bearer ${apiKey}`) {
      response.writeHead(401, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: { message: "The key is not right." } }));
      return;
    }
    const { model, messages, stream } = (await json(request)) as ChatRequest;
    const { text = "", calls = [] } = script(saidIn(messages));
    const tool_calls = calls.map((call, index) => ({
      index,
      id: `call-${messages.length}-${index}`,
      type: "function",
      function: { name: call.name, arguments: JSON.stringify(call.arguments) },
    }));
    const finish_reason = calls.length > 0 ? "tool_calls" : "stop";
    const usage = { prompt_tokens: 20 * messages.length, completion_tokens: 10, total_tokens: 20 * messages.length + 10 };
    const given = { id: "chat", created: 0, model, object: stream ? "chat.completion.chunk" : "chat.completion" };
    if (!stream) {
      const message = { role: "assistant", content: text, ...(calls.length > 0 ? { tool_calls } : {}) };
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ ...given, usage, choices: [{ index: 0, message, finish_reason }] }));
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    const send = (delta: object, rest: object = {}) =>
      response.write(`data: ${JSON.stringify({ ...given, choices: [{ index: 0, delta, ...rest }] })}\n\n`);
    for (const content of text.match(/\s*\S+/g) ?? []) send({ role: "assistant", content });
    if (calls.length > 0) send({ role: "assistant", tool_calls });
    send({}, { finish_reason });
    response.end(`data: ${JSON.stringify({ ...given, choices: [], usage })}\n\ndata: [DONE]\n\n`);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await once(server.close(), "close");
    },
  };
}

function saidIn(messages: ChatRequest["messages"]): Said {
  const text = (role: string) => messages.findLast((message) => message.role === role)?.content ?? "";
  const since = messages.slice(messages.findLastIndex(({ role }) => role === "user"));
  return {
    system: text("system"),
    user: text("user"),
    turns: since.filter(({ role }) => role === "assistant").length,
    results: since.flatMap(({ role, content }) => (role === "tool" ? [content ?? ""] : [])),
  };
}
