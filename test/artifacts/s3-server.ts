// A server that speaks S3, on loopback, for as long as a test.
import { mkdtempSync, rmSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { S3Client } from "@aws-sdk/client-s3";

interface S3rver {
  run(): Promise<AddressInfo>;
  close(): Promise<void>;
  httpServer: import("node:http").Server;
}

// It ships no types.
const S3Server = createRequire(import.meta.url)("@20minutes/s3rver") as new (options: object) => S3rver;

/** @param isStrict Whether signatures are verified. The server computes those of calls for a whole bucket otherwise than the SDK does. */
export async function startS3(isStrict = false) {
  const directory = mkdtempSync(join(tmpdir(), "s3-test-"));
  const server = new S3Server({
    address: "127.0.0.1",
    port: 0,
    silent: true,
    directory,
    allowMismatchedSignatures: !isStrict,
    configureBuckets: [{ name: "test" }],
  });
  const { port } = await server.run();
  const clients: S3Client[] = [];
  return {
    server: server.httpServer,
    client(credentials = { accessKeyId: "S3RVER", secretAccessKey: "S3RVER" }): S3Client {
      const endpoint = `http://127.0.0.1:${port}`;
      const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials, maxAttempts: 2 });
      clients.push(client);
      return client;
    },
    async close(): Promise<void> {
      for (const client of clients) client.destroy();
      server.httpServer.closeAllConnections();
      await server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
