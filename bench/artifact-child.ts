/** Puts an artifact and reads it, and looks at its own memory meanwhile. */
import { randomBytes } from "node:crypto";
import { createRuntime } from "abstractruntime";
import { s3Blobs } from "abstractruntime/s3";
import type { Streamed } from "./artifact.ts";
import { openStore } from "./compare.ts";

const [, , directory, size, port] = process.argv as [string, string, string, string, string];
const chunkBytes = 65_536;
// Its chunks share its memory: what is measured is what we take, and not what a source does.
const noise = randomBytes(64 * 1024 * 1024);

async function* chunks(sizeBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < sizeBytes; at += chunkBytes) {
    const from = (at * 7) % (noise.length - chunkBytes);
    look();
    yield noise.subarray(from, from + Math.min(chunkBytes, sizeBytes - at));
  }
}

let most = 0;
function look(): void {
  most = Math.max(most, process.memoryUsage.rss());
}

const store = await openStore("sqlite", directory);
const endpoint = `http://127.0.0.1:${port}`;
const credentials = { accessKeyId: "S3RVER", secretAccessKey: "S3RVER" };
const clientOptions = { endpoint, region: "us-east-1", forcePathStyle: true, credentials };
const artifacts = port === "" ? {} : { artifacts: await s3Blobs({ clientOptions, bucket: "bench", prefix: "artifacts/" }) };
const runtime = await createRuntime({ store, scheduler: false, ...artifacts });

/** Seconds, and the most memory above `base`. */
async function measured(base: number, action: () => Promise<unknown>): Promise<{ seconds: number; growth: number }> {
  most = 0;
  const start = performance.now();
  await action();
  return { seconds: (performance.now() - start) / 1_000, growth: most - base };
}

async function roundTrip(sizeBytes: number, base: number): Promise<Streamed> {
  let ref = { $artifact: "" };
  const put = await measured(base, async () => {
    ref = await runtime.artifacts.put(chunks(sizeBytes));
  });
  const read = await measured(base, async () => {
    let length = 0;
    for await (const chunk of (await runtime.artifacts.open(ref)).stream()) {
      length += chunk.length;
      look();
    }
    if (length !== sizeBytes) throw new Error(`${length} bytes came back`);
  });
  return { putSeconds: put.seconds, putGrowth: put.growth, readSeconds: read.seconds, readGrowth: read.growth };
}

process.send?.("ready");
// What is loaded and compiled once is not what a larger artifact would take more of.
await roundTrip(1_000_000, 0);
process.send?.(await roundTrip(Number(size), process.memoryUsage.rss()));
setInterval(() => undefined, 60_000);
