// The contract, held by SQLite on a real file; then what only SQLite does.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "vitest";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { storeContract } from "../../src/testing/store-contract.ts";

storeContract(
  "sqlite",
  async ({ clock }) => {
    const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
    const path = join(directory, "runs.db");
    let store = await sqliteStore(path, { clock });
    return {
      store,
      async reopen() {
        await store.close();
        store = await sqliteStore(path, { clock });
        return store;
      },
      async close() {
        await store.close();
        rmSync(directory, { recursive: true });
      },
    };
  },
  { describe, it },
);
