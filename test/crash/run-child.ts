import { spawn } from "node:child_process";
import { join } from "node:path";

export interface Ended<Report> {
  signal: NodeJS.Signals | null;
  code: number | null;
  /** What it came to, if it lived to say so. */
  report?: Report;
  complaint: string;
}

/** Runs a program of this folder in a process of its own, to its end. */
export function runProgram<Report>(program: string, task: unknown): Promise<Ended<Report>> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...process.execArgv, join(import.meta.dirname, program), JSON.stringify(task)], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    let complaint = "";
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (complaint += chunk));
    child.on("error", reject);
    child.on("close", (code, signal) =>
      resolve({ code, signal, complaint, ...(output === "" ? {} : { report: JSON.parse(output) as Report }) }),
    );
  });
}
