// Without the packages that serve HTTP, `serveToolWorker` says what to install; the executor at the other side needs neither.
import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

const program = `
import { registerHooks } from "node:module";
registerHooks({
  resolve(specifier, context, next) {
    if (specifier !== "hono" && !specifier.startsWith("@hono/")) return next(specifier, context);
    throw Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" });
  },
});
const { remoteTools, serveToolWorker } = await import("abstractruntime/worker");
remoteTools({ url: "https://tools.example.com", token: "t" });
await serveToolWorker({ tools: { a: { run: () => 1 } }, token: "t" }).catch(({ code, message }) => console.log(code, message));
`;

test("the packages are named", () => {
  const { stdout, status } = spawnSync(process.execPath, [...process.execArgv, "--input-type=module", "--eval", program], {
    encoding: "utf8",
  });
  expect(status).toBe(0);
  expect(stdout).toMatch(/^INVALID_OPTION .*`npm install hono @hono\/node-server`/);
});
