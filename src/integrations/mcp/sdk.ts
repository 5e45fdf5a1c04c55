/** The MCP client: an optional peer, loaded when the first server is connected to. */
import { AbstractRuntimeError } from "../../index.ts";

export interface Sdk {
  client: typeof import("@modelcontextprotocol/client");
  stdio: typeof import("@modelcontextprotocol/client/stdio");
}

/** @throws INVALID_OPTION when the package is not installed. */
export async function loadSdk(): Promise<Sdk> {
  try {
    const [client, stdio] = await Promise.all([
      import("@modelcontextprotocol/client"),
      import("@modelcontextprotocol/client/stdio"),
    ]);
    return { client, stdio };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    const problem =
      'the package "@modelcontextprotocol/client" is not installed, which mcpTools() speaks to servers with: run `npm install @modelcontextprotocol/client`';
    throw new AbstractRuntimeError("INVALID_OPTION", { option: "tools", problem }, cause);
  }
}
