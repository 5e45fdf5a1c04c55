/** `abstractruntime/mcp`: the tools of MCP servers. */
export { type McpTools, mcpTools } from "./mcp-tools.ts";
export type { HeaderSource, HttpServerOptions, McpServerOptions, StdioServerOptions } from "./server-options.ts";
