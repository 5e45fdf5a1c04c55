/** A server that speaks S3, in a process of its own, so that its memory is not ours. */
import { createRequire } from "node:module";

const [, , directory] = process.argv as [string, string, string];
const S3Server = createRequire(import.meta.url)("@20minutes/s3rver");
const server = new S3Server({
  address: "127.0.0.1",
  port: 0,
  silent: true,
  directory: `${directory}/s3`,
  configureBuckets: [{ name: "bench" }],
});
const { port } = await server.run();
process.on("message", () => process.send?.(port));
process.send?.("ready");
