import type { Runtime, WatchItem } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { findRun } from "../find-run.ts";
import { moment } from "../moment.ts";
import { reading } from "../open-runtime.ts";
import type { Terminal } from "../terminal.ts";
import { summary, typeOf } from "./ledger.ts";

export const addWatch: AddCommand = (program, act) => {
  program
    .command("watch")
    .description("show a run as it happens, until it ends: its records, and what its effects stream")
    .argument("<run>", "id of the run, or its beginning")
    .option("--after <cursor>", "only what came behind this item, whose cursor --json shows")
    .addHelpText(
      "after",
      `
It drives nothing: the run goes on where its workers are, and may be watched from any machine that reaches the store. What is streamed
is provisional until the record of its outcome stands. With --json one item to a line. Ctrl-C ends it, and says how to go on.

Examples:
  $ abstractruntime watch 3f2a
  $ abstractruntime watch 3f2a --json --after '12;3:1:240'`,
    )
    .action(act(watch));
};

async function watch(cli: Cli, given: string, { after }: { after?: string }): Promise<number> {
  const interrupted = new AbortController();
  const ignore = cli.terminal.io.onInterrupt(() => interrupted.abort());
  try {
    return await reading(cli, async (runtime) => show(cli, runtime, await findRun(runtime, given), after, interrupted.signal));
  } finally {
    ignore();
  }
}

async function show(cli: Cli, runtime: Runtime, runId: string, after: string | undefined, signal: AbortSignal): Promise<number> {
  const screen = new Screen(cli.terminal);
  let cursor = after;
  try {
    for await (const item of runtime.watch(runId, { after, signal })) {
      cursor = item.cursor;
      if (cli.json) cli.terminal.json(item);
      else screen.show(item);
      if (cli.terminal.gone) break;
    }
    return 0;
  } catch (error) {
    if (!signal.aborted) throw error;
    screen.endLine();
    cli.terminal.note(`Stopped. Go on with \`${nextCommand(cli, "watch", [runId], { after: cursor })}\`.`);
    return 130;
  }
}

/** Records are lines; between them, what is streamed stands as it comes, each stream under a line that names it. */
class Screen {
  readonly #terminal: Terminal;
  readonly #types = new Map<string, string>();
  /** The stream whose text is being shown. */
  #showing: string | undefined;
  /** The first half of a character that the next part completes. */
  #half = "";
  #inLine = false;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  show(item: WatchItem): void {
    if (item.kind === "stream") return this.#part(item);
    this.endLine();
    this.#showing = undefined;
    if (item.kind === "reset") {
      this.#terminal.line(`${this.#name(item)} streams anew: what was shown of it counts no more`, "yellow");
      return;
    }
    const { record } = item;
    typeOf(record, this.#types);
    const effect = record.effectId === undefined ? [] : [this.#name(record)];
    this.#terminal.line(
      [String(record.seq).padStart(4), moment(record.at), record.node, record.kind, ...effect, summary(record)]
        .join("  ")
        .trimEnd(),
      "dim",
    );
  }

  endLine(): void {
    if (this.#inLine) this.#terminal.line();
    this.#inLine = false;
    this.#half = "";
  }

  #part(item: WatchItem & { kind: "stream" }): void {
    const { type, text, ...members } = item.part;
    const more = Object.values(members).map((member) => ` ${member}`);
    const stream = `${this.#name(item)} ${type}${more.join("")}`;
    if (stream !== this.#showing) {
      this.endLine();
      this.#terminal.line(`${stream}:`, "bold");
      this.#showing = stream;
    }
    const whole = this.#half + text;
    this.#half = /[\ud800-\udbff]$/.test(whole) ? whole.slice(-1) : "";
    const shown = whole.slice(0, whole.length - this.#half.length);
    this.#terminal.text(shown);
    this.#inLine = !shown.endsWith("\n");
  }

  #name({ effectId, attempt }: { effectId?: string; attempt?: number }): string {
    return `${this.#types.get(effectId as string) ?? "effect"} ${effectId}${attempt === undefined ? "" : `/${attempt}`}`;
  }
}
