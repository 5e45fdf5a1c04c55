/** The command line in this process: `main` with streams that collect, and a store in a directory of its own. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { main } from "../../src/cli/cli.ts";
import type { Io } from "../../src/cli/terminal.ts";

// commander imports "node:process" as a module, which opens all three streams of this process. They are nobody's to close.
for (const stream of [process.stdin, process.stdout, process.stderr]) stream.unref?.();

export const fixture = (name: string): string => resolve(import.meta.dirname, "fixtures", name);

export interface Output {
  code: number;
  out: string;
  err: string;
  /** What stdout holds, as JSON. */
  json: any;
}

export interface Given extends Partial<Io> {
  /** Typed as soon as something is asked for, one after the other. */
  keys?: string[];
  /** Hears what is written to stderr. */
  heard?: (text: string) => void;
}

/** Keys as a terminal sends them. */
export const key = { enter: "\r", down: "\u001b[B", ctrlC: "\u0003" };

export class CommandLine {
  readonly directory = mkdtempSync(join(tmpdir(), "abstractruntime-cli-"));
  readonly storePath = join(this.directory, "runs.db");

  /** One command over this store. */
  ar(...args: string[]): Promise<Output> {
    return this.with({}, ...args);
  }

  async with(given: Given, ...args: string[]): Promise<Output> {
    const { keys, heard, ...io } = given;
    const stdin = new Keyboard();
    const stdout = new Collector((text) => {
      // A prompt hides the cursor when it begins.
      const next = text.includes("\u001b[?25l") ? keys?.shift() : undefined;
      if (next !== undefined) setImmediate(() => stdin.write(next));
    });
    const stderr = new Collector(heard);
    const code = await main(["--store", `sqlite:${this.storePath}`, ...args], {
      stdin,
      stdout,
      stderr,
      isTTY: keys !== undefined,
      colours: false,
      onInterrupt: () => () => {},
      ...io,
    });
    stdin.destroy();
    const out = stdout.text;
    return {
      code,
      out,
      err: stderr.text,
      get json() {
        return JSON.parse(out);
      },
    };
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Enough of a terminal for prompts: it hears that raw mode is wanted, and reports its last question. */
class Keyboard extends PassThrough {
  isTTY = true;
  isRaw = false;
  setRawMode(raw: boolean): this {
    this.isRaw = raw;
    return this;
  }
}

class Collector extends Writable {
  text = "";
  readonly #heard: (text: string) => void;
  columns = 80;
  rows = 24;
  isTTY = true;

  constructor(heard: (text: string) => void = () => {}) {
    super();
    this.#heard = heard;
  }

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    this.#heard(chunk.toString());
    done();
  }
}
