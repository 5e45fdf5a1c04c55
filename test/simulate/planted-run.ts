// Simulates one of `simulated` in a process of its own, with a bug planted in the source or none, and prints what was broken, as JSON.
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { pathToFileURL } from "node:url";
import type { FaultRates, SimulateOptions } from "abstractruntime/testing";

export interface PlantedTask {
  /** One of `simulated`. */
  code: string;
  faults: FaultRates;
  seeds: NonNullable<SimulateOptions["seeds"]>;
  /** One exact replacement in a source file. */
  bug?: { path: string; find: string; replace: string };
}

const { code, faults, seeds, bug } = JSON.parse(process.argv[2] as string) as PlantedTask;
if (bug) {
  const planted = pathToFileURL(bug.path).href;
  const source = readFileSync(bug.path, "utf8").replace(bug.find, () => bug.replace);
  registerHooks({
    load: (url, context, next) =>
      url === planted ? { format: "module-typescript", source, shortCircuit: true } : next(url, context),
  });
}
const { simulate } = await import("abstractruntime/testing");
const { simulated } = await import("./workflows.ts");
const chosen = simulated[code];
if (!chosen) throw new Error(`there is no workflow "${code}"`);
const report = await simulate(chosen.code, { ...chosen.options, seeds, faults, minimise: false });
const [failure] = report.failures;
console.log(JSON.stringify(failure ? { seed: failure.seed, invariant: failure.invariant, problem: failure.problem } : {}));
// A planted bug may leave something that never ends.
process.exit(0);
