// A process that dies in the middle of a payment. The same program, started again, finds the run and finishes it, and
// the customer has paid once. Without arguments it starts itself twice to show that, in a temporary directory.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { complete, createRuntime, defineEffect, defineWorkflow, type } from "abstractruntime";

const pay = defineEffect("pay", {
  input: type<{ cents: number }>(),
  onUncertain: "retry", // The default, spelt out: the other side can tell a second attempt by its key.
  run: ({ cents }, { idempotencyKey, attempt, uncertain }) => {
    console.log(`pay: attempt ${attempt}${uncertain ? ", an earlier one may have happened" : ""}`);
    // The "bank" is a directory with a file for each payment, named by its idempotency key.
    const payment = `payment-${idempotencyKey}.json`;
    if (existsSync(payment)) console.log("pay: the bank has this payment already");
    else writeFileSync(payment, JSON.stringify({ cents }));
    // The worst moment: the money has moved, and nobody has written that down.
    if (attempt === 1) process.kill(process.pid, "SIGKILL");
    return { cents };
  },
});

const purchase = defineWorkflow({
  id: "purchase",
  vars: type<{ cents: number; receipt?: { cents: number } }>(),
  entry: "pay",
  effects: [pay],
  nodes: {
    pay: ({ vars }) => pay({ cents: vars.cents }, { resultKey: "receipt", nextNode: "thank" }),
    thank: ({ vars }) => complete({ thanks: true, paid: vars.receipt?.cents }),
  },
});

if (process.argv[2] === "work") {
  await using runtime = await createRuntime({ workflows: [purchase] });
  // With an id of our own a second start finds the run that the first one made.
  const { runId } = await runtime.start(purchase, { runId: "purchase-1", vars: { cents: 4_200 } });
  console.log("output:", await runtime.result(runId));
  console.log("ledger verifies:", (await runtime.verify(runId)).ok);
} else {
  const cwd = mkdtempSync(join(tmpdir(), "crash-"));
  for (const time of ["first", "second"]) {
    console.log(`-- ${time} start`);
    const { signal, stdout } = spawnSync(process.execPath, [...process.execArgv, import.meta.filename, "work"], {
      cwd,
      encoding: "utf8",
    });
    console.log(`${stdout}-- ${signal ? `killed by ${signal}` : "ended by itself"}`);
  }
  console.log("payments at the bank:", readdirSync(cwd).filter((name) => name.startsWith("payment-")).length);
  rmSync(cwd, { recursive: true });
}
