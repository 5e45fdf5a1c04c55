// The contract, held by files in a real directory; then what only files do.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "vitest";
import { filesStore } from "../../src/stores/files/index.ts";
import { storeContract } from "../../src/testing/store-contract.ts";

storeContract(
  "files",
  async ({ clock }) => {
    const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
    let store = await filesStore(directory, { clock });
    return {
      store,
      async reopen() {
        await store.close();
        store = await filesStore(directory, { clock });
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
