/** Empty stores for the simulator, one for each seed. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { filesStore } from "abstractruntime/files";
import { memoryStore } from "abstractruntime/memory";
import { postgresStore } from "abstractruntime/postgres";
import { sqliteStore } from "abstractruntime/sqlite";
import type { SimulateOptions } from "abstractruntime/testing";
import pg from "pg";
import { dropSchema, emptySchema, newSchema, serverUrl } from "../stores/postgres-server.ts";

export const placeNames = ["memory", "sqlite", "files", "postgres"] as const;

/** Where the stores of one name are made. */
export interface SimulatedPlace {
  store: NonNullable<SimulateOptions["store"]>;
  remove(): Promise<void>;
}

export function simulatedPlace(name: (typeof placeNames)[number]): SimulatedPlace {
  if (name === "memory") return { store: memoryStore, remove: async () => undefined };
  return name === "postgres" ? inSchema() : inDirectory(name);
}

function inDirectory(name: "sqlite" | "files"): SimulatedPlace {
  const directory = mkdtempSync(join(tmpdir(), "simulated-"));
  let opened = 0;
  return {
    store: ({ clock }) => {
      const path = join(directory, String(opened++));
      return name === "files" ? filesStore(path, { clock }) : sqliteStore(`${path}.db`, { clock });
    },
    remove: async () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** One schema, emptied before each seed. */
function inSchema(): SimulatedPlace {
  const schema = newSchema();
  const pool = new pg.Pool({ connectionString: serverUrl(), max: 4 });
  let isMade = false;
  return {
    async store({ clock }) {
      if (isMade) await emptySchema(pool, schema);
      isMade = true;
      return postgresStore({ pool, schema, clock, listen: false });
    },
    async remove() {
      await pool.end();
      await dropSchema(schema);
    },
  };
}
