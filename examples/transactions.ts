// An order and its run, written together; and a reservation whose row and record are one commit: exactly once, whatever is killed.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { complete, createRuntime, defineEffect, defineWorkflow, permanent, type } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";

const reserve = defineEffect("reserve", {
  input: type<{ orderId: string; item: string }>(),
  transactional: true,
  run: ({ orderId, item }, { transaction }) => {
    const db = transaction as DatabaseSync; // The store's transaction: never committed here.
    db.prepare("INSERT INTO reservations VALUES (?, ?)").run(orderId, item);
    const { changes } = db.prepare("UPDATE stock SET left = left - 1 WHERE item = ? AND left > 0").run(item);
    // Whatever is thrown rolls back the reservation above, too.
    if (changes === 0) throw permanent(new Error(`no ${item} is left`));
    return { reserved: item };
  },
});

const order = defineWorkflow({
  id: "order",
  vars: type<{ orderId: string; item: string; got?: { reserved: string } }>(),
  effects: [reserve],
  entry: "reserve",
  nodes: {
    reserve: ({ vars: { orderId, item } }) =>
      reserve({ orderId, item }, { resultKey: "got", nextNode: "done", errorNode: "soldOut" }),
    done: ({ vars }) => complete({ got: vars.got?.reserved ?? null }),
    soldOut: ({ error }) => complete({ got: null, why: error?.message }),
  },
});

const directory = mkdtempSync(join(tmpdir(), "transactions-"));
const path = join(directory, "shop.db");
await using runtime = await createRuntime({ workflows: [order], store: await sqliteStore(path) });
// Your own tables live in the same file.
const db = new DatabaseSync(path);
db.exec("CREATE TABLE orders (id TEXT PRIMARY KEY) STRICT; CREATE TABLE reservations (id TEXT, item TEXT) STRICT");
db.exec("CREATE TABLE stock (item TEXT PRIMARY KEY, left INTEGER) STRICT; INSERT INTO stock VALUES ('lamp', 1)");

for (const orderId of ["first", "second", "regretted"]) {
  db.exec("BEGIN IMMEDIATE");
  db.prepare("INSERT INTO orders VALUES (?)").run(orderId);
  await runtime.start(order, { runId: orderId, vars: { orderId, item: "lamp" }, transaction: db });
  db.exec(orderId === "regretted" ? "ROLLBACK" : "COMMIT");
}
for (const orderId of ["first", "second"]) console.log(orderId, await runtime.result(orderId));
const { runs } = await runtime.list({ idPrefix: "regretted" });
const orders = db.prepare("SELECT id FROM orders").all();
const reservations = db.prepare("SELECT id FROM reservations").all();
console.log(`regretted: ${runs.length} runs; ${orders.length} orders, ${reservations.length} reservation`);
db.close();
rmSync(directory, { recursive: true });
