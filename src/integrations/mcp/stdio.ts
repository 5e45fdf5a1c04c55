/** A server as a child process. It ends with its connection, and with this process at the latest. */
import type { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { descendants } from "./descendants.ts";
import type { Sdk } from "./sdk.ts";
import type { Secrets } from "./secrets.ts";
import type { StdioServerOptions } from "./server-options.ts";
import { largestMessage } from "./limits.ts";

interface Started {
  transport: StdioClientTransport;
  /** What it wrote to its standard error last, for errors. */
  lastWords(): string;
}

const mostWords = 500;

/** Not started yet: connecting does. */
export function stdioTransport({ stdio }: Sdk, { command, args, env, cwd }: StdioServerOptions, secrets: Secrets): Started {
  /** Ends all processes of a server: some start others, and end without them. */
  class Transport extends stdio.StdioClientTransport {
    override close(): Promise<void> {
      return endedWith(this, () => super.close());
    }
  }
  // The client ends a process so that it starts to find out which revision a server speaks.
  const { _dispose } = stdio.StdioClientTransport.prototype as unknown as { _dispose?: () => Promise<void> };
  if (_dispose)
    Object.assign(Transport.prototype, {
      _dispose(this: Transport): Promise<void> {
        return endedWith(this, () => _dispose.call(this));
      },
    });
  const transport = new Transport({
    command,
    args: [...(args ?? [])],
    ...(env === undefined ? {} : { env: { ...env } }),
    ...(cwd === undefined ? {} : { cwd }),
    // Its messages are not this program's to print.
    stderr: "pipe",
    maxBufferSize: largestMessage,
  });
  let words = "";
  transport.stderr?.on("data", (chunk: Buffer) => {
    // As much more as the beginning of a secret may take whose end has not come yet: cut in two, it would not be known as one.
    words = secrets.scrub(words + chunk.toString()).slice(-(mostWords + secrets.longest));
  });
  return { transport, lastWords: () => words.slice(-mostWords).trim() };
}

/** Those that are alive, for a process that ends without closing them. */
const living = new Set<StdioClientTransport>();

/** @returns What says that it has ended. */
export function endWithThisProcess(transport: StdioClientTransport): () => void {
  if (living.size === 0) process.on("exit", killAll);
  living.add(transport);
  return () => {
    living.delete(transport);
    if (living.size === 0) process.off("exit", killAll);
  };
}

/** A process that dies otherwise closes their standard inputs with that, which tells them to end. */
function killAll(): void {
  for (const transport of living) kill(transport);
}

/** Ends the processes of a server at once, where it has any. */
export function kill(transport: object): void {
  for (const pid of processesOf(transport)) end(pid);
}

async function endedWith(transport: object, close: () => Promise<void>): Promise<void> {
  const processes = processesOf(transport);
  await close();
  for (const pid of processes) end(pid);
}

/** Those of a server: the one that was started here, and what that one has started. Of `npx`, the server is a child of its child. */
function processesOf(transport: object): number[] {
  const { pid } = transport as { pid?: number | null };
  return typeof pid === "number" ? [pid, ...descendants(pid)] : [];
}

function end(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
