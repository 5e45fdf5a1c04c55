import { spawnSync } from "node:child_process";
import { StatementSync } from "node:sqlite";
import { expect, test, vi } from "vitest";
import { sqliteStore } from "../src/stores/sqlite/index.ts";

function runOn(version: string, ...command: string[]) {
  const pretend = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${version}" } })`;
  return spawnSync(process.execPath, ["--import", `data:text/javascript,${encodeURIComponent(pretend)}`, ...command], {
    encoding: "utf8",
  });
}

test.each([
  ["the command", "src/cli/main.ts"],
  ["an npm script", "scripts/check-node.mjs"],
])("%s on an older Node says one sentence and exits with 1", (_, file) => {
  for (const version of ["20.20.2", "22.19.0", "23.11.1", "24.6.0"]) {
    const { status, stdout, stderr } = runOn(version, file);
    expect(stderr).toMatch(/^abstractruntime needs Node 22\.20, or 24\.7 or newer, and this is [\d.]+: .+\.\n$/);
    expect(stdout).toBe("");
    expect(status).toBe(1);
  }
});

test.each(["22.20.0", "24.7.0", "25.0.0"])("Node %s is new enough", (version) => {
  expect(runOn(version, "scripts/check-node.mjs").status).toBe(0);
});

test("a SQLite that cannot bind `?1`, as in older Nodes, is told of when the store is opened", async () => {
  const { get } = StatementSync.prototype;
  const old = vi.spyOn(StatementSync.prototype, "get").mockImplementation(function (this: StatementSync, ...values) {
    if (!this.sourceSQL.includes("?1")) return get.apply(this, values);
    throw Object.assign(new Error("column index out of range"), { code: "ERR_SQLITE_ERROR", errcode: 25 });
  });
  try {
    await expect(sqliteStore(":memory:")).rejects.toThrow(
      `STORE_UNAVAILABLE: the store sqlite::memory: cannot be opened or written: Node ${process.versions.node} is too old`,
    );
  } finally {
    old.mockRestore();
  }
});
