// The contract, held by PostgreSQL on a real server; then what only it does.
import pg from "pg";
import { afterAll, describe, it } from "vitest";
import { postgresStore } from "../../src/stores/postgres/index.ts";
import { storeContract } from "../../src/testing/store-contract.ts";
import { dropSchema, emptySchema, newSchema, serverUrl } from "./postgres-server.ts";

// Shared by all tests of the contract, which open their stores very often. What it may keep on its connections is looked at below.
const pool = new pg.Pool({ connectionString: serverUrl(), max: 4 });
const schema = newSchema();
afterAll(async () => {
  await pool.end();
  await dropSchema(schema);
});

storeContract(
  "postgres",
  async ({ clock }) => {
    const open = () => postgresStore({ pool, schema, clock });
    let store = await open();
    return {
      store,
      async reopen() {
        await store.close();
        store = await open();
        return store;
      },
      async close() {
        await store.close();
        await emptySchema(pool, schema);
      },
    };
  },
  { describe, it },
);
