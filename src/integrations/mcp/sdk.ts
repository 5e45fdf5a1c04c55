/** The MCP client: an optional peer, loaded when the first server is connected to. */
import { withoutPeer } from "../peer.ts";

export interface Sdk {
  client: typeof import("@modelcontextprotocol/client");
  stdio: typeof import("@modelcontextprotocol/client/stdio");
}

/** @throws INVALID_OPTION when the package is not installed. */
export async function loadSdk(): Promise<Sdk> {
  try {
    const client = await import("@modelcontextprotocol/client");
    const stdio = await import("@modelcontextprotocol/client/stdio");
    return { client, stdio };
  } catch (cause) {
    throw withoutPeer(cause, ["@modelcontextprotocol/client"], "tools", "mcpTools() speaks to servers with it");
  }
}
