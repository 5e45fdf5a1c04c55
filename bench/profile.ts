/** With `--profile`: where our own turns spend their time, raw ones left out. */
import { Session } from "node:inspector/promises";
import type { Profiler, Runtime } from "node:inspector";
import { relative } from "node:path";

let session: Session | undefined;
let selfUs = new Map<string, number>();

export async function startProfiling(): Promise<void> {
  session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.setSamplingInterval", { interval: 200 });
}

/** Carries out `work` under the profiler, if there is one. */
export async function profiled<T>(work: () => Promise<T>): Promise<T> {
  if (!session) return work();
  await session.post("Profiler.start");
  const value = await work();
  const { profile } = await session.post("Profiler.stop");
  add(profile);
  return value;
}

/** The functions with most time of their own since the last call, as lines of text. */
export function takeProfile(lines = 25): string {
  const total = [...selfUs.values()].reduce((sum, us) => sum + us, 0);
  const top = [...selfUs].sort(([, a], [, b]) => b - a).slice(0, lines);
  selfUs = new Map();
  return top.map(([name, us]) => `${((us * 100) / total).toFixed(1).padStart(6)} %  ${name}`).join("\n");
}

function add({ nodes, samples = [], timeDeltas = [] }: Profiler.Profile): void {
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
  samples.forEach((id, i) => {
    const name = names.get(id) ?? "?";
    if (name.includes("node:inspector")) return;
    selfUs.set(name, (selfUs.get(name) ?? 0) + (timeDeltas[i] ?? 0));
  });
}

function nameOf({ functionName, url, lineNumber }: Runtime.CallFrame): string {
  if (url === "") return functionName || "(native)";
  const file = url.startsWith("file:") ? relative(process.cwd(), new URL(url).pathname) : url;
  return `${functionName || "(anonymous)"}  ${file}:${lineNumber + 1}`;
}
