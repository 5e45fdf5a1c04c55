// An MCP server for tests, of both protocol eras. Over stdio it is a program: `node server.ts`, with LOG naming a file that says what
// its tools did, a word a line. Over HTTP its factory is served in the test's own process.
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { inputRequired, McpServer } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";

const readOnly = { annotations: { readOnlyHint: true } };
const text = (said: string) => ({ content: [{ type: "text" as const, text: said }] });

export function testServer(log: string | undefined): McpServer {
  const note = (word: string): number => {
    if (log === undefined) return 0;
    appendFileSync(log, `${word}\n`);
    return notes(log).filter((line) => line === word).length;
  };
  const server = new McpServer({ name: "test", version: "1" }, { capabilities: { tools: { listChanged: true } } });

  server.registerTool(
    "echo",
    { inputSchema: z.object({ said: z.string() }), description: "Says it again", ...readOnly },
    ({ said }) => text(said),
  );
  server.registerTool("count", { inputSchema: z.object({}) }, () => text(String(note("count"))));
  server.registerTool("pid", { inputSchema: z.object({}), ...readOnly }, () => text(String(process.pid)));
  server.registerTool("add", { inputSchema: z.object({}), annotations: { destructiveHint: false } }, () => text("added"));
  server.registerTool("fail", { inputSchema: z.object({}) }, () => ({ ...text("no such order"), isError: true }));
  server.registerTool("env", { inputSchema: z.object({}), ...readOnly }, () => text(JSON.stringify(process.env)));
  server.registerTool("pin", { inputSchema: z.object({}), description: `Needs ${process.env.API_KEY}`, ...readOnly }, () => ({
    ...text("it"),
    structuredContent: {
      pin: Number(process.env.PIN_SECRET),
      json: process.env.JSON_SECRET ?? "",
      [`${process.env.API_KEY}`]: 1,
    },
  }));
  server.registerTool("complain", { inputSchema: z.object({}) }, () => {
    throw new Error(`bad key ${process.env.API_KEY}`);
  });

  // Asks twice; what it was told first is in its state alone.
  server.registerTool("ask", { inputSchema: z.object({ greeting: z.string() }) }, ({ greeting }, { mcpReq }) => {
    note("ask");
    const state = mcpReq.requestState<string>();
    const { who, colour } = (mcpReq.inputResponses ?? {}) as Record<string, { action: string; content?: Record<string, string> }>;
    if (who?.action === "decline") return text("nobody to greet");
    if (state !== undefined && colour) return text(`${greeting}, ${state} in ${colour.content?.colour}`);
    const schema = (name: string) => ({
      type: "object" as const,
      properties: { [name]: { type: "string" as const } },
      required: [name],
    });
    if (who)
      return inputRequired({
        inputRequests: { colour: inputRequired.elicit({ message: "Which colour?", requestedSchema: schema("colour") }) },
        requestState: String(who.content?.name),
      });
    return inputRequired({
      inputRequests: { who: inputRequired.elicit({ message: "Who is it?", requestedSchema: schema("name") }) },
      requestState: "nobody yet",
    });
  });
  // Asks for two things at once.
  server.registerTool("form", { inputSchema: z.object({}) }, (_, { mcpReq }) => {
    const answers = (mcpReq.inputResponses ?? {}) as Record<string, { action: string }>;
    if (answers.page && answers.name) return text(`${answers.page.action} ${answers.name.action}`);
    const requestedSchema = { type: "object" as const, properties: { name: { type: "string" as const } } };
    return inputRequired({
      inputRequests: {
        page: inputRequired.elicitUrl({ message: "Sign in", url: "https://example.com/sign-in" }),
        name: inputRequired.elicit({ message: "Your name?", requestedSchema }),
      },
    });
  });
  // Gives nothing but state, three times.
  server.registerTool("patience", { inputSchema: z.object({}) }, (_, { mcpReq }) => {
    const state = mcpReq.requestState<string>() ?? "";
    return state.length < 3 ? inputRequired({ requestState: `${state}.` }) : text(`after ${state}`);
  });
  server.registerTool("impatience", { inputSchema: z.object({}) }, () => inputRequired({ requestState: "again" }));
  server.registerTool("leak", { inputSchema: z.object({}) }, () =>
    inputRequired({
      inputRequests: { more: inputRequired.elicit({ message: "More?", requestedSchema: { type: "object", properties: {} } }) },
      requestState: String(process.env.API_KEY),
    }),
  );
  server.registerTool("confide", { inputSchema: z.object({}) }, () =>
    inputRequired({
      inputRequests: {
        more: inputRequired.elicit({
          message: `May I use ${process.env.API_KEY}?`,
          requestedSchema: { type: "object", properties: {} },
        }),
      },
    }),
  );
  server.registerTool("forge", { inputSchema: z.object({}) }, () => {
    const name = { type: "string" as const, $artifact: "ab".repeat(32) };
    const requestedSchema = { type: "object" as const, properties: { name } };
    return inputRequired({ inputRequests: { name: inputRequired.elicit({ message: "Name?", requestedSchema }) } });
  });
  server.registerTool("novel", { inputSchema: z.object({}) }, () =>
    inputRequired({
      inputRequests: {
        long: inputRequired.elicit({ message: "?".repeat(200_000), requestedSchema: { type: "object", properties: {} } }),
      },
    }),
  );

  for (const [name, annotations] of [
    ["die", {}],
    ["peek", { readOnlyHint: true }],
  ] as const)
    server.registerTool(name, { inputSchema: z.object({}), annotations }, () => {
      if (note(name) > 1) return text("alive");
      console.error(`cannot go on with ${process.env.API_KEY}`);
      process.exit(3);
    });
  server.registerTool("hang", { inputSchema: z.object({}) }, async (_, { mcpReq }) => {
    note("hang");
    await new Promise((resolve) => mcpReq.signal.addEventListener("abort", resolve));
    note("aborted");
    return text("too late");
  });
  server.registerTool("freeze", { inputSchema: z.object({}) }, () => {
    note("freeze");
    for (;;) if (log === undefined) return text("never");
  });
  server.registerTool("work", { inputSchema: z.object({ steps: z.number() }) }, async ({ steps }, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken as string;
    for (let progress = 1; progress <= steps; progress++) {
      await mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress, message: `step ${progress}` } });
      // What comes along with the result is not heard any more.
      while (!notes(log ?? "").includes(`heard step ${progress}`)) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return text("done");
  });
  server.registerTool("garbage", { inputSchema: z.object({}) }, () => {
    process.stdout.write('this is no JSON\n{"neither": "this"}\n');
    return text("it went on");
  });
  server.registerTool("flood", { inputSchema: z.object({ bytes: z.number() }) }, ({ bytes }) => text("x".repeat(bytes)));
  server.registerTool("grow", { inputSchema: z.object({}) }, () => {
    server.registerTool("grown", { inputSchema: z.object({}) }, () => text("new"));
    return text("grew");
  });

  server.registerTool("media", { inputSchema: z.object({ bytes: z.number() }) }, ({ bytes }) => {
    const data = (kind: number) => Buffer.alloc(bytes, kind).toString("base64");
    return {
      content: [
        { type: "text", text: "look" },
        { type: "image", data: data(1), mimeType: "image/png" },
        { type: "audio", data: data(2), mimeType: "audio/wav" },
        { type: "resource", resource: { uri: "file:///a.bin", blob: data(3), mimeType: "application/zip" } },
        { type: "resource", resource: { uri: "file:///a.txt", text: "inside", mimeType: "text/plain" } },
        { type: "resource_link", uri: "file:///b.txt", name: "b", mimeType: "text/plain", size: 3 },
      ],
    };
  });
  const weather = z.object({ celsius: z.number() });
  server.registerTool("weather", { inputSchema: z.object({}), outputSchema: weather }, () => ({
    ...text('{"celsius":21}'),
    structuredContent: { celsius: 21 },
  }));
  // Both would take a backtracking engine years.
  const slow = /^(a+)+$/;
  server.registerTool("slow-input", { inputSchema: z.object({ word: z.string().regex(slow) }) }, () => text("matched"));
  const slowWord = z.object({ word: z.string() }).meta({ properties: { word: { type: "string", pattern: slow.source } } });
  server.registerTool("slow-output", { inputSchema: z.object({}), outputSchema: slowWord }, () => ({
    ...text("word"),
    structuredContent: { word: `${"a".repeat(40)}!` },
  }));
  return server;
}

/** What the tools noted. */
export function notes(log: string): string[] {
  return existsSync(log) ? readFileSync(log, "utf8").split("\n").slice(0, -1) : [];
}

if (process.argv[1] === import.meta.filename) {
  if (process.env.LATE === undefined)
    serveStdio(() => testServer(process.env.LOG), { onerror: ({ message }) => console.error(message) });
  // Takes what it is sent, says nothing, and does not end with its input.
  else setInterval(() => process.stdin.resume(), 1_000);
}
