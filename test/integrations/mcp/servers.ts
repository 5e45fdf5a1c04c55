// The MCP servers that tests speak to, each for one test: whatever is opened here ends with `using`.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { getRequestListener } from "@hono/node-server";
import { createMcpHandler } from "@modelcontextprotocol/server";
import http from "node:http";
import { compiled } from "../../compile-cache.ts";
import { notes, testServer } from "./server.ts";

export const everything = resolve("node_modules/@modelcontextprotocol/server-everything/dist/index.js");
export const filesystem = resolve("node_modules/@modelcontextprotocol/server-filesystem/dist/index.js");
const own = join(import.meta.dirname, "server.ts");

export interface Place extends Disposable {
  path: string;
  /** What the tools of the test server noted. */
  notes(): string[];
  /** The test server over stdio, noting here. */
  stdio(env?: Record<string, string>): { name: string; command: string; args: string[]; env: Record<string, string> };
}

export function place(): Place {
  const path = mkdtempSync(join(tmpdir(), "mcp-test-"));
  const log = join(path, "log");
  return {
    path,
    notes: () => notes(log),
    stdio: (env = {}) => ({ name: "test", command: process.execPath, args: [own], env: { LOG: log, ...compiled(), ...env } }),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}

export interface Served extends AsyncDisposable {
  url: string;
  requests: { authorization: string | undefined; body: string }[];
}

/** Looks at each request before the server does, and may answer it itself. */
type Gate = (request: IncomingMessage, response: ServerResponse, body: string) => boolean;

/** The test server over streamable HTTP, at a port of the system's choice, or any server that a gate makes. */
export async function serve(gate: Gate = () => false, log?: string, port = 0): Promise<Served> {
  const handler = createMcpHandler(() => testServer(log));
  const requests: Served["requests"] = [];
  const listener = getRequestListener((request) => handler.fetch(request));
  const server = http.createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    requests.push({ authorization: request.headers.authorization, body });
    if (gate(request, response, body)) return;
    const again = Object.assign(request, { rawBody: Buffer.from(body) });
    await listener(again, response);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`,
    requests,
    async [Symbol.asyncDispose]() {
      await handler.close();
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** `server-everything` over streamable HTTP, as a process. */
export async function everythingAt(port: number): Promise<{ url: string } & AsyncDisposable> {
  const child = spawn(process.execPath, [everything, "streamableHttp"], {
    env: { ...process.env, PORT: String(port) },
    stdio: ["ignore", "ignore", "pipe"],
  });
  await once(child.stderr, "data");
  child.stderr.resume();
  return {
    url: `http://127.0.0.1:${port}/mcp`,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "close");
    },
  };
}
