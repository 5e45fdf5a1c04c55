/** Which MCP server is meant, and how it is spoken to. */
import type { OnUncertain } from "../../index.ts";
import { checkOptions, refuse } from "../options.ts";

/** A server that is started here and spoken to over its standard input and output, or one at a URL. */
export type McpServerOptions = StdioServerOptions | HttpServerOptions;

export interface StdioServerOptions extends CommonOptions {
  /** The program to start, such as `npx`. No shell is involved. */
  command: string;
  args?: readonly string[];
  /**
   * Its environment, beside HOME, LOGNAME, PATH, SHELL, TERM and USER of this process (on Windows their counterparts). Nothing else is
   * passed on.
   */
  env?: Readonly<Record<string, string>>;
  /** Its working directory. Default: that of this process. */
  cwd?: string;
  url?: never;
  headers?: never;
}

export interface HttpServerOptions extends CommonOptions {
  /** Where it speaks streamable HTTP. */
  url: string | URL;
  /** Sent with every request to that origin, and to no other. A function is asked for each request. Default: none. */
  headers?: HeaderSource;
  command?: never;
  args?: never;
  env?: never;
  cwd?: never;
}

export type HeaderSource =
  | Readonly<Record<string, string>>
  | (() => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>);

interface CommonOptions {
  /** What it is called in errors and questions. */
  name: string;
  /** What the names of its tools begin with here. Default: nothing. */
  prefix?: string;
  /** Longest time of one call in which the server says nothing of it; each progress notification starts it anew. Default: 120,000. */
  timeoutMs?: number;
  /**
   * What becomes of a call whose attempt was cut off by a crash, and that may have been carried out: the result EFFECT_UNCERTAIN, a
   * question to a person, or another attempt. Tools that only read are always tried again. Default: `"fail"`.
   */
  onUncertain?: OnUncertain;
  /** Longest time for the server to start and to agree on a protocol revision. Default: 60,000. */
  connectTimeoutMs?: number;
}

export type Server = McpServerOptions & {
  prefix: string;
  timeoutMs: number;
  connectTimeoutMs: number;
  onUncertain: OnUncertain;
};

/** @throws INVALID_OPTION */
export function readServer(options: McpServerOptions): Server {
  const where = "mcpTools()";
  if (typeof options !== "object" || options === null) refuse("options", `${where} needs { name, command } or { name, url }`);
  checkOptions(
    options,
    ["name", "command", "args", "env", "cwd", "url", "headers", "prefix", "timeoutMs", "connectTimeoutMs", "onUncertain"],
    where,
  );
  const { name, command, args, env, cwd, url, headers } = options;
  const { prefix = "", timeoutMs = 120_000, connectTimeoutMs = 60_000, onUncertain = "fail" } = options;
  if (typeof name !== "string" || name === "") refuse("name", `${where} needs a name for the server`);
  if (typeof prefix !== "string") refuse("prefix", `${where}: prefix is a text`);
  for (const [option, value] of Object.entries({ timeoutMs, connectTimeoutMs }))
    if (!(typeof value === "number" && value > 0 && value <= longestMs))
      refuse(option, `${where}: ${option} is a number of milliseconds from 1 to ${longestMs}`);
  if (!["retry", "fail", "ask"].includes(onUncertain)) refuse("onUncertain", `${where}: onUncertain is "fail", "ask" or "retry"`);
  if ((command === undefined) === (url === undefined)) refuse("command", `${where} needs either a command or a url`);
  if (command !== undefined) {
    if (typeof command !== "string" || command === "") refuse("command", `${where}: command is the name of a program`);
    if (args !== undefined && !(Array.isArray(args) && args.every((arg) => typeof arg === "string")))
      refuse("args", `${where}: args is a list of texts`);
    if (env !== undefined && !isTexts(env)) refuse("env", `${where}: env holds texts`);
    if (cwd !== undefined && typeof cwd !== "string") refuse("cwd", `${where}: cwd is a path`);
    if (headers !== undefined) refuse("headers", `${where}: only a url takes headers`);
  } else {
    if (!isHttp(url)) refuse("url", `${where}: url is an http: or https: URL`);
    if (headers !== undefined && typeof headers !== "function" && !isTexts(headers))
      refuse("headers", `${where}: headers are texts, or a function that gives them`);
    for (const [option, value] of Object.entries({ args, env, cwd }))
      if (value !== undefined) refuse(option, `${where}: only a command takes ${option}`);
  }
  return { ...options, prefix, timeoutMs, connectTimeoutMs, onUncertain } as Server;
}

/** Timers take no more. */
const longestMs = 2 ** 31 - 1;

function isTexts(value: unknown): value is Record<string, string> {
  return typeof value === "object" && value !== null && Object.values(value).every((text) => typeof text === "string");
}

function isHttp(url: unknown): boolean {
  const parsed = typeof url === "string" || url instanceof URL ? URL.parse(String(url)) : null;
  return parsed?.protocol === "http:" || parsed?.protocol === "https:";
}
