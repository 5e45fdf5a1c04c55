/** Every kind of store, each opened empty. */
import { join } from "node:path";
import { afterAll } from "vitest";
import type { Store } from "abstractruntime";
import { filesStore } from "abstractruntime/files";
import { memoryStore } from "abstractruntime/memory";
import { postgresStore } from "abstractruntime/postgres";
import { sqliteStore } from "abstractruntime/sqlite";
import { dropSchema, newSchema, serverUrl } from "../stores/postgres-server.ts";

const schemas: string[] = [];
afterAll(async () => {
  for (const schema of schemas) await dropSchema(schema);
});

/** @param place A directory for those that need one. */
export const stores: Record<string, (place: string) => Promise<Store>> = {
  memory: async () => memoryStore(),
  sqlite: (place) => sqliteStore(join(place, "runs.db")),
  files: (place) => filesStore(join(place, "store")),
  postgres: () => {
    const schema = newSchema();
    schemas.push(schema);
    return postgresStore({ connectionString: serverUrl(), schema });
  },
};
