/** The MCP client: an optional peer, loaded when the first server is connected to. */
import { loadPeer } from "../peer.ts";

export interface Sdk {
  client: typeof import("@modelcontextprotocol/client");
  stdio: typeof import("@modelcontextprotocol/client/stdio");
}

/** @throws INVALID_OPTION when the package is not installed. */
export function loadSdk(): Promise<Sdk> {
  const load = async (): Promise<Sdk> => {
    const [client, stdio] = await Promise.all([
      import("@modelcontextprotocol/client"),
      import("@modelcontextprotocol/client/stdio"),
    ]);
    return { client, stdio };
  };
  return loadPeer(load, ["@modelcontextprotocol/client"], "tools", "mcpTools() speaks to servers with it");
}
