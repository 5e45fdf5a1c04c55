/** Processes beside this one, on the same store: started with the same code, told and asked by messages. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

/** Starts `script`, a file beside this one. It says when it is ready. */
export async function startProcess(script: string, args: readonly string[]): Promise<ChildProcess> {
  const child = fork(join(import.meta.dirname, script), args);
  started.add(child);
  child.once("close", () => void started.delete(child));
  await heard(child);
  return child;
}

/** The next message of a process. Rejects when it ends first. */
export async function heard<Message>(child: ChildProcess): Promise<Message> {
  const over = new AbortController();
  if (hasEnded(child)) throw new Error(`${child.spawnargs.join(" ")} has ended already.`);
  const ended = once(child, "close", { signal: over.signal }).then(([code, signal]) => {
    throw new Error(`${child.spawnargs.join(" ")} ended with ${signal ?? code}.`);
  });
  ended.catch(() => undefined);
  try {
    const [message] = await Promise.race([once(child, "message", { signal: over.signal }), ended]);
    return message as Message;
  } finally {
    over.abort();
  }
}

/** Ends a process at once, as a power cut would. */
export async function kill(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const closed = once(child, "close");
  child.kill("SIGKILL");
  await closed;
}

/** Lets a process end by itself. */
export async function finish(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const closed = once(child, "close");
  child.send("end");
  await closed;
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

/** Milliseconds on a clock that all processes of the host share, and that nobody sets. */
export function hostMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

const started = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of started) child.kill("SIGKILL");
});
