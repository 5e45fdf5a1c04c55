// Simulates an order under crashes, lost answers, slow and dead stores and jumping clocks, seed by seed, and checks after each that
// nobody has paid twice. The careless version is found out, with the fewest faults that it takes.
import { askUser, complete, defineEffect, defineWorkflow, type } from "abstractruntime";
import { describeFault, simulate, type SimulationInvariant } from "abstractruntime/testing";

/** The bank of one seed: what was booked for which run. */
let booked: { runId: string; key: string }[] = [];

function orderWith(bank: "careful" | "careless") {
  const charge = defineEffect("charge", {
    input: type<{ cents: number }>(),
    run: ({ cents }, { runId, idempotencyKey: key }) => {
      // A bank that knows the payment by its key does not make it again.
      if (bank === "careless" || !booked.some((payment) => payment.key === key)) booked.push({ runId, key });
      return { cents };
    },
  });
  return defineWorkflow({
    id: "order",
    vars: type<{ cents: number; confirmed?: { text: string } }>(),
    entry: "confirm",
    effects: [charge],
    nodes: {
      confirm: ({ vars }) =>
        askUser({ prompt: `Pay ${vars.cents} cents?`, choices: ["yes", "no"] }, { resultKey: "confirmed", nextNode: "pay" }),
      pay: ({ vars }) =>
        vars.confirmed?.text === "yes" ? charge({ cents: vars.cents }, { nextNode: "done" }) : complete("left"),
      done: () => complete("paid"),
    },
  });
}

const paidOnce: SimulationInvariant = ({ runs }) => {
  for (const { runId, output } of runs) {
    const times = booked.filter((payment) => payment.runId === runId).length;
    if (times > 1 || (output === "paid" && times === 0)) throw new Error(`run ${runId} has paid ${times} times`);
  }
};

for (const bank of ["careful", "careless"] as const) {
  const code = () => {
    booked = [];
    return orderWith(bank);
  };
  const report = await simulate(code, { seeds: 200, vars: (random) => ({ cents: random.int(1, 100) }), invariants: paidOnce });
  console.log(`${bank}: ${report.ok ? `no problem in ${report.seeds} seeds` : report.failures[0]?.problem}`);
  for (const fault of report.failures[0]?.schedule ?? []) console.log(`  because ${describeFault(fault)}`);
}
