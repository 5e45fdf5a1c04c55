// Without the package that speaks S3, `s3Blobs` says what to install.
import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";

const program = `
import { registerHooks } from "node:module";
registerHooks({
  resolve(specifier, context, next) {
    if (!specifier.startsWith("@aws-sdk/")) return next(specifier, context);
    throw Object.assign(new Error("Cannot find package"), { code: "ERR_MODULE_NOT_FOUND" });
  },
});
const { s3Blobs } = await import("abstractruntime/s3");
await s3Blobs({ bucket: "b", prefix: "p/" }).catch(({ code, message }) => console.log(code, message));
`;

test("the package is named", () => {
  const { stdout, status } = spawnSync(process.execPath, [...process.execArgv, "--input-type=module", "--eval", program], {
    encoding: "utf8",
  });
  expect(status).toBe(0);
  expect(stdout).toMatch(/^INVALID_OPTION .*run `npm install @aws-sdk\/client-s3`/);
});
