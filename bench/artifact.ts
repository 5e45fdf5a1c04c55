/** An artifact of 2 GB, put as a stream and read as a stream: how much memory that takes, and how fast it is. */
import { atMost, type Figure } from "./figure.ts";
import { newPlace, remove } from "./place.ts";
import { heard, kill, startProcess } from "./processes.ts";
import type { Settings } from "./settings.ts";

/** Of a whole stream: seconds, and by how many bytes the process had grown at most. */
export interface Streamed {
  putSeconds: number;
  putGrowth: number;
  readSeconds: number;
  readGrowth: number;
}

const mebibyte = 1024 * 1024;

export async function artifact(settings: Settings): Promise<Figure[]> {
  const sizeBytes = settings.scaled(2_000_000_000);
  const places = settings.stores.includes("sqlite") ? ["sqlite", "s3"] : [];
  const figures: Figure[] = [];
  for (const on of places) {
    const directory = newPlace();
    const server = on === "s3" ? await startProcess("artifact-server.ts", [directory]) : undefined;
    server?.send("port");
    const port = server ? String(await heard<number>(server)) : "";
    const child = await startProcess("artifact-child.ts", [directory, String(sizeBytes), port]);
    const { putSeconds, putGrowth, readSeconds, readGrowth } = await heard<Streamed>(child);
    await kill(child);
    if (server) await kill(server);
    remove(directory);
    const what = `artifact of ${(sizeBytes / 1e9).toLocaleString("en")} GB`;
    const growth = {
      unit: "MiB",
      note: "most resident memory above that before, in a process that had put and read one of 1 MB",
    };
    figures.push(
      { name: `${what} in: growth`, on, ours: putGrowth / mebibyte, ...growth, asked: [atMost(putGrowth / mebibyte, 64)] },
      {
        name: `${what} out: growth`,
        on,
        ours: readGrowth / mebibyte,
        ...growth,
        ...ofHttp(on),
        asked: [atMost(readGrowth / mebibyte, 64)],
      },
      { name: `${what} in`, on, ours: sizeBytes / 1e6 / putSeconds, unit: "MB/s", note: "hashed, and durable at the end" },
      { name: `${what} out`, on, ours: sizeBytes / 1e6 / readSeconds, unit: "MB/s", note: "with its hash checked" },
    );
  }
  return figures;
}

function ofHttp(on: string): { note?: string } {
  return on === "s3" ? { note: "Node's buffers of an HTTP response, which V8 collects late; no more for larger ones" } : {};
}
