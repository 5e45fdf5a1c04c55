// Simulates one of `simulated` in a process of its own, over the source that its package has, and prints what was broken, as JSON.
import { simulate } from "abstractruntime/testing";
import { simulated } from "./workflows.ts";

const [name = "", count = "", faults = "{}"] = process.argv.slice(2);
const chosen = simulated[name];
if (!chosen) throw new Error(`there is no workflow "${name}"`);
const { failures, seeds } = await simulate(chosen.code, {
  ...chosen.options,
  seeds: Number(count),
  faults: JSON.parse(faults),
  minimise: false,
});
const [failure] = failures;
console.log(JSON.stringify({ seeds, ...(failure ? { invariant: failure.invariant, problem: failure.problem } : {}) }));
// A planted bug may leave something that never ends.
process.exit(0);
