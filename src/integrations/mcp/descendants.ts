/** The processes that a process has started, and those that these have: the system ends none of them along with it. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

/** As far as the system tells: none on Windows. */
export function descendants(pid: number): number[] {
  const childrenOf = process.platform === "linux" ? childrenInProc : childrenInTable();
  const found = [pid];
  // The list grows while it is walked.
  for (const at of found) found.push(...childrenOf(at));
  return found.slice(1);
}

function childrenInProc(pid: number): number[] {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    return threads.flatMap((thread) => numbersIn(readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8")));
  } catch {
    // It has ended.
    return [];
  }
}

/** Of all processes at once: asking takes a process. */
function childrenInTable(): (pid: number) => number[] {
  if (process.platform === "win32") return () => [];
  const { stdout } = spawnSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" });
  const table = (stdout ?? "").split("\n").map(numbersIn);
  return (parent) => table.flatMap(([pid, ppid]) => (pid !== undefined && ppid === parent ? [pid] : []));
}

function numbersIn(text: string): number[] {
  return text.trim().split(/\s+/).filter(Boolean).map(Number);
}
