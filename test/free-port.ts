/** A port at which nobody listens. */
import { once } from "node:events";
import { createServer } from "node:net";

// Below those that systems give to whoever connects somewhere, and to whoever listens at port 0: the port is still free when it is
// used, and free again for a server that is started anew.
const [first, last] = [12_000, 30_000];

export async function freePort(): Promise<number> {
  for (;;) {
    const port = first + Math.floor(Math.random() * (last - first));
    const server = createServer().listen(port, "127.0.0.1");
    const isFree = await once(server, "listening").then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}
