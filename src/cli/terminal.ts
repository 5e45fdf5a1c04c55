/**
 * Where a command prints, and the rule that nothing printed is obeyed by the terminal: every text passes `printable` on its way out,
 * and styles are put on afterwards. No command writes to a stream by itself.
 */
import type { Readable, Writable } from "node:stream";
import { styleText } from "node:util";
import Table from "cli-table3";

/** What a command may touch of its process. Tests make their own. */
export interface Io {
  stdin: Readable;
  stdout: Writable;
  stderr: Writable;
  /** Whether a person sits there, who can be asked. */
  isTTY: boolean;
  colours: boolean;
  /** Width of the screen; undefined when the output goes into a file or a pipe, where nothing is cut. */
  columns?: number;
  /** Calls `listener` at the next Ctrl-C. The one after it ends the process, as if nobody listened. */
  onInterrupt(listener: () => void): () => void;
}

export type Style = "bold" | "dim" | "red" | "green" | "yellow";

export function processIo(): Io {
  const { stdin, stdout, stderr } = process;
  return {
    stdin,
    stdout,
    stderr,
    isTTY: stdin.isTTY === true && stdout.isTTY === true,
    colours: stdout.isTTY === true && stderr.isTTY === true && stdout.hasColors(),
    ...(stdout.isTTY ? { columns: stdout.columns } : {}),
    onInterrupt(listener) {
      // Once: without a listener of ours Node's own takes over, which ends the process at once. Services are stopped by SIGTERM.
      const signals = ["SIGINT", "SIGTERM"] as const;
      for (const signal of signals) process.once(signal, listener);
      return () => {
        for (const signal of signals) process.off(signal, listener);
      };
    },
  };
}

/** Control characters (C0, C1, DEL), direction overrides and other invisible ones, line separators, lone surrogates. Joiners stay: emoji and scripts need them. */
const unprintable = /[[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]--[\u200c\u200d]]/gv;

/** One line that a terminal shows and does not obey: what it might obey stands there as `\u001b`. */
export function printable(text: string): string {
  return text.replace(unprintable, escaped);
}

/** As `printable`, keeping line breaks. */
export function printableLines(text: string): string {
  return text.split("\n").map(printable).join("\n");
}

/** JSON on one line. Readers get back exactly what was written: escapes inside of texts are the only thing added. */
export function jsonLine(value: unknown): string {
  return printable(JSON.stringify(value));
}

function escaped(character: string): string {
  let text = "";
  for (let i = 0; i < character.length; i++) text += `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`;
  return text;
}

export class Terminal {
  readonly io: Io;
  /** The reader went away (`| head`): nothing more needs to be made for it. */
  gone = false;
  /** The output could not be written for another reason: the command has failed. */
  broken = false;

  constructor(io: Io) {
    this.io = io;
    io.stdout.on("error", (error: NodeJS.ErrnoException) => {
      this.gone = true;
      if (this.broken || error.code === "EPIPE") return;
      this.broken = true;
      this.note(`The output cannot be written: ${error.message}.`, "red");
    });
    // Nobody is left to be told.
    io.stderr.on("error", () => {});
  }

  line(text = "", style?: Style): void {
    this.#write(this.#styled(printable(text), style));
  }

  /** Text as it comes: the next one goes on where it ends. */
  text(text: string): void {
    if (!this.gone) this.io.stdout.write(printableLines(text));
  }

  /** Text of several lines, each set in by `indent`. */
  block(text: string, indent = ""): void {
    for (const line of text.split("\n")) this.line(indent + line);
  }

  /** Names and what they stand for, below each other. Values that are undefined are left out; an empty name is an empty line. */
  fields(entries: readonly (readonly [name: string, value: string | undefined])[]): void {
    const shown = entries.filter((entry): entry is [string, string] => entry[1] !== undefined);
    const width = Math.max(0, ...shown.map(([name]) => name.length));
    for (const [name, value] of shown)
      this.#write(`  ${this.#styled(printable(name).padEnd(width), "dim")}  ${printable(value)}`);
  }

  /** A value as indented JSON. */
  value(value: unknown, indent = ""): void {
    this.block(JSON.stringify(value, null, 2), indent);
  }

  /** One JSON value on a line of its own. */
  json(value: unknown): void {
    this.#write(jsonLine(value));
  }

  /** For people, on stderr, so that it never mixes with what a program reads. */
  note(text: string, style?: Style): void {
    for (const line of text.split("\n")) this.io.stderr.write(`${this.#styled(printable(line), style)}\n`);
  }

  /** Text of our own that is printed as it is, such as help. */
  help(text: string): void {
    if (!this.gone) this.io.stdout.write(text);
  }

  /**
   * @param flexible Index of the columns that may be cut when the screen is too narrow, widest first. The others are what a person copies.
   */
  table(head: readonly string[], rows: readonly (readonly string[])[], flexible: readonly number[]): void {
    const cells = rows.map((row) => row.map(printable));
    const widths = this.io.columns === undefined ? undefined : fitted(this.io.columns, columnWidths(head, cells), flexible);
    const table = plainTable(widths);
    table.push([...head], ...cells);
    const [first = "", ...lines] = table.toString().split("\n");
    this.#write(this.#styled(first.trimEnd(), "bold"));
    for (const line of lines) this.#write(line.trimEnd());
  }

  #write(line: string): void {
    if (!this.gone) this.io.stdout.write(`${line}\n`);
  }

  #styled(text: string, style: Style | undefined): string {
    return style && this.io.colours ? styleText(style, text, { validateStream: false }) : text;
  }
}

const gap = "  ";
const borders = ["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left", "bottom-right"] as const;
const lines = ["left", "left-mid", "mid", "mid-mid", "right", "right-mid"] as const;
const noBorders = Object.fromEntries([...borders, ...lines].map((name) => [name, ""]));

/** Without frames, so that it can be searched and cut by other programs. */
function plainTable(colWidths?: number[]): Table.Table {
  const style = { head: [], border: [], "padding-left": 0, "padding-right": 0 };
  return new Table({ chars: { ...noBorders, middle: gap }, style, ...(colWidths ? { colWidths } : {}) });
}

function columnWidths(head: readonly string[], rows: readonly (readonly string[])[]): number[] {
  return head.map((name, i) => {
    const column = plainTable();
    column.push([name], ...rows.map((row) => [row[i] ?? ""]));
    return column.width;
  });
}

/** Takes from the widest of the flexible columns until everything fits, and leaves each something to read. */
function fitted(columns: number, natural: readonly number[], flexible: readonly number[]): number[] {
  const least = 8;
  const widths = [...natural];
  const total = (): number => widths.reduce((sum, width) => sum + width, gap.length * (widths.length - 1));
  for (let over = total() - columns; over > 0; over--) {
    const widest = flexible.reduce((best, i) => ((widths[i] ?? 0) > (widths[best] ?? 0) ? i : best), flexible[0] ?? 0);
    if ((widths[widest] ?? 0) <= least) break;
    widths[widest] = (widths[widest] as number) - 1;
  }
  return widths;
}
