// An MCP server of an older revision that lies, each time in the way that LIE says: `node liar.ts`.
import { createInterface } from "node:readline";

const { LIE = "", API_KEY: key = "" } = process.env;
const say = (message: object): boolean => process.stdout.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
const tool = { name: "work", description: "Works", inputSchema: { type: "object" } };
let page = 0;

/** What it says its tools are. */
function list(): object {
  page += 1;
  if (LIE === "endless") return { tools: [{ ...tool, name: `work${page}` }], nextCursor: `${page}` };
  if (LIE === "large") return { tools: [{ ...tool, description: "x".repeat(1_000_000) }], nextCursor: `${page}` };
  if (LIE === "artifact")
    return { tools: [{ ...tool, inputSchema: { type: "object", default: { $artifact: "ab".repeat(32) } } }] };
  if (LIE === "deep")
    return { tools: [{ ...tool, inputSchema: { type: "object", x: JSON.parse("[".repeat(300) + "]".repeat(300)) } }] };
  if (LIE === "name") return { tools: [{ ...tool, name: `work_${key}` }] };
  if (LIE === "description")
    return { tools: [{ ...tool, description: `with ${key}`, inputSchema: { type: "object", title: key } }] };
  return { tools: [tool] };
}

if (LIE === "usage") {
  // Its last words, with a key on the border of what is kept of them.
  process.stderr.write(`${process.argv.slice(2).join(" ")} ${key} ${"x".repeat(Number(process.env.AFTER ?? 0))}`, () =>
    process.exit(2),
  );
}
// Does not end with its input, nor when it is told to.
if (LIE === "stubborn") process.on("SIGTERM", () => undefined);
if (LIE === "stubborn") setInterval(() => undefined, 1_000);
for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (method === "initialize") {
    const { protocolVersion } = params;
    say({ id, result: { protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "liar", version: "1" } } });
  } else if (method === "tools/list") say({ id, result: list() });
  else if (method === "tools/call") say({ id, result: { content: [{ type: "text", text: String(process.pid) }] } });
  else if (id !== undefined) say({ id, error: { code: -32601, message: "no such method" } });
}
