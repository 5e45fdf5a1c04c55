import { existsSync, statfsSync } from "node:fs";
import { defineConfig } from "vitest/config";

// Inside this repository "abstractruntime" means src/, not dist/.
const source = "abstractruntime-source";
const report = process.env.TEST_REPORT;

// No test cuts the power, so that nothing is learnt from waiting for a disk: where the system has a large directory in memory, files
// of tests go there, which halves the time. `TMPDIR=/tmp npm test` runs them on the disk.
const inMemory = "/dev/shm";
const leastBytes = 4 * 1024 ** 3;
if (process.env.TMPDIR === undefined && existsSync(inMemory)) {
  const { bavail, bsize } = statfsSync(inMemory);
  if (bavail * bsize >= leastBytes) process.env.TMPDIR = inMemory;
}

export default defineConfig({
  ssr: { resolve: { conditions: [source] } },
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/left-open.ts"],
    // One PostgreSQL server for the whole run, and one place for what Node compiled.
    globalSetup: ["test/stores/postgres-server.ts", "test/compile-cache.ts"],
    // A process per test file, so that left-open.ts can tell whose files and sockets are open.
    pool: "forks",
    // Much of the time goes to waiting for disks, so none of two cores is left to the runner alone, as it would be by default.
    maxWorkers: "100%",
    // Node processes that a test forks inherit it.
    execArgv: [`--conditions=${source}`],
    allowOnly: false,
    // Generous, for machines that are busy with something else. Nothing waits for it.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    teardownTimeout: 60_000,
    reporters: report ? ["default", "json"] : ["default"],
    outputFile: report ? { json: report } : {},
  },
});
