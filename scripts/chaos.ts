// npm run chaos -- [--store postgres|sqlite] [--workers N] [--runs N] [--kill-every MS] [--outages N]: kills workers, and the server,
// while they drive runs, and says whether anything was lost or done twice.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chaos } from "../test/crash/chaos.ts";
import { startServer } from "../test/stores/postgres-server.ts";

const { values } = parseArgs({
  options: {
    store: { type: "string", default: "postgres" },
    workers: { type: "string", default: "8" },
    runs: { type: "string", default: "2000" },
    "kill-every": { type: "string", default: "1000" },
    outages: { type: "string", default: "3" },
  },
});
const server = values.store === "postgres" ? await startServer() : undefined;
const directory = mkdtempSync(join(tmpdir(), "chaos-"));
try {
  const report = await chaos({
    address: server?.url ?? `sqlite:${directory}/runs.db`,
    workers: Number(values.workers),
    runs: Number(values.runs),
    killEveryMs: Number(values["kill-every"]),
    ...(server ? { outages: Number(values.outages), cutOff: () => server.cutOff() } : { outages: 0 }),
    withinMs: 900_000,
    log: console.log,
  });
  const { tookMs, kills, outages, steps, repeated, problems } = report;
  console.log(
    `${values.runs} runs, ${steps} steps in ${(tookMs / 1_000).toFixed(1)} s (${Math.round((steps / tookMs) * 1_000)} steps/s) with ${kills} kills and ${outages} outages; ${repeated} attempts were made again`,
  );
  for (const problem of problems.slice(0, 20)) console.log(problem);
  console.log(problems.length === 0 ? "Nothing was lost, and nothing done twice." : `${problems.length} problems`);
  process.exitCode = problems.length === 0 ? 0 : 1;
} finally {
  await server?.remove();
  rmSync(directory, { recursive: true, force: true });
}
