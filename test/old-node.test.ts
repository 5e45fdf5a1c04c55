import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

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
  for (const version of ["20.20.2", "22.17.1"]) {
    const { status, stdout, stderr } = runOn(version, file);
    expect(stderr).toMatch(/^abstractruntime needs Node 22\.18 or newer, and this is [\d.]+: .+\.\n$/);
    expect(stdout).toBe("");
    expect(status).toBe(1);
  }
});

test("Node 22.18 is new enough", () => {
  expect(runOn("22.18.0", "scripts/check-node.mjs").status).toBe(0);
});
