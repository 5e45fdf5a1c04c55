// Workers that are killed and a database that is cut off lose nothing and do nothing twice. A small share of `npm run chaos`.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { startServer } from "../stores/postgres-server.ts";
import { chaos } from "./chaos.ts";

test("two workers on one SQLite file end all runs, whoever is killed", async () => {
  const directory = mkdtempSync(join(tmpdir(), "chaos-"));
  try {
    const address = `sqlite:${directory}/runs.db`;
    const report = await chaos({ address, workers: 2, runs: 40, killEveryMs: 400, outages: 0, withinMs: 150_000 });
    expect(report.problems).toEqual([]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test("two workers on Postgres end all runs, whoever is killed and although the server is", async () => {
  const server = await startServer();
  try {
    const report = await chaos({
      address: server.url,
      workers: 2,
      runs: 40,
      killEveryMs: 1_000,
      outages: 1,
      cutOff: () => server.cutOff(),
      withinMs: 150_000,
    });
    expect(report).toMatchObject({ problems: [], outages: 1 });
  } finally {
    await server.remove();
  }
});
