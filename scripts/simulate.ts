// npm run simulate -- --seeds N [--from S] [--workflow NAME] [--store NAME] [--failures N] [--without KIND,...]: simulates the examples and random workflows, seed by seed.
// On postgres, DATABASE_URL names the server; without it, one is started.
import { parseArgs } from "node:util";
import { type FaultRates, simulate } from "abstractruntime/testing";
import { placeNames, simulatedPlace } from "../test/simulate/places.ts";
import { simulated } from "../test/simulate/workflows.ts";
import startPostgres from "../test/stores/postgres-server.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    workflow: { type: "string" },
    store: { type: "string", default: "memory" },
    failures: { type: "string", default: "1" },
    without: { type: "string", default: "" },
  },
});
const [from, count, maxFailures] = [values.from, values.seeds, values.failures].map(Number) as [number, number, number];
const rates: FaultRates = Object.fromEntries(
  values.without
    .split(",")
    .filter(Boolean)
    .map((kind) => [kind, false]),
);
const placeName = placeNames.find((name) => name === values.store);
if (!placeName) {
  console.error(`There is no store "${values.store}". There are: ${placeNames.join(", ")}`);
  process.exit(2);
}
const stopServer = placeName === "postgres" ? await startPostgres() : undefined;
const place = simulatedPlace(placeName);
const names = values.workflow === undefined ? Object.keys(simulated) : [values.workflow];
let failed = false;
for (const name of names) {
  const chosen = simulated[name];
  if (!chosen) {
    console.error(`There is no workflow "${name}". There are: ${Object.keys(simulated).join(", ")}`);
    process.exit(2);
  }
  const began = performance.now();
  let done = 0;
  const report = await simulate(chosen.code, {
    ...chosen.options,
    store: place.store,
    seeds: { from, count },
    maxFailures,
    faults: rates,
    onSeed: () => {
      done += 1;
      if (done % 1_000 === 0) console.log(`${name}: ${done} seeds, ${perSeed(began, done)} ms each`);
    },
  });
  const { runs, records, handlerCalls, storeCalls, faults } = report.totals;
  console.log(
    `${report.ok ? "ok  " : "FAIL"} ${name}: ${report.seeds} seeds, ${perSeed(began, report.seeds)} ms each; ${faults} faults, ${runs} runs, ${records} records, ${handlerCalls} handler calls, ${storeCalls} store calls`,
  );
  if (report.problem !== undefined) console.log(report.problem);
  failed ||= !report.ok;
}
await place.remove();
await stopServer?.();
process.exitCode = failed ? 1 : 0;

function perSeed(began: number, seeds: number): string {
  return ((performance.now() - began) / seeds).toFixed(1);
}
