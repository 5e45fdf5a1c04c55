// Runs around every test file, and fails it when it leaves something open: what keeps the process alive (servers, sockets,
// timers, child processes), and, where the system tells (Linux), open files, which is how an unclosed database shows.
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { afterAll } from "vitest";

// Taken now, since tests may install fake timers.
const { setTimeout: later } = globalThis;
const graceMs = 20_000;
// Node opens the process's own pipes when they are first looked at, which any package does that imports node:process.
void [process.stdin, process.stdout, process.stderr];
const before = openThings();

afterAll(async () => {
  // Closing takes a few turns of the event loop: a socket's last packet, a child's exit.
  for (let waitedMs = 0; leftOpen().length > 0 && waitedMs < graceMs; waitedMs += 20) {
    await new Promise((resolve) => later(resolve, 20));
  }
  const left = leftOpen();
  if (left.length > 0) throw new Error(`Left open by this test file: ${left.join(", ")}. Close it in the test that opened it.`);
});

function leftOpen(): string[] {
  const known = [...before];
  return openThings().filter((thing) => {
    const at = known.indexOf(thing);
    if (at >= 0) known.splice(at, 1);
    return at < 0;
  });
}

function openThings(): string[] {
  return [...process.getActiveResourcesInfo(), ...openFiles()];
}

function openFiles(): string[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith("/") && (path.endsWith(" (deleted)") || statSync(path).isFile()) ? [path] : [];
    } catch {
      return []; // the descriptor of this very listing, closed by now
    }
  });
}
