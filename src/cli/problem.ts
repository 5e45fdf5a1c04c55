/** How an error is told on the command line: `CODE: fact.`, the next step, and the exit code. */
import { CommanderError } from "commander";
import { AbstractRuntimeError, isError } from "../index.ts";
import { defaultStore } from "./command.ts";
import { withoutPassword } from "./open-store.ts";
import type { Terminal } from "./terminal.ts";

/** An error whose next step is another one on the command line than in a program. */
export class Advised extends Error {
  readonly error: AbstractRuntimeError;
  readonly hint: string;

  constructor(error: AbstractRuntimeError, hint: string) {
    super(error.message, { cause: error });
    this.error = error;
    this.hint = hint;
  }
}

/** The command was used wrongly: exit code 2. */
export function wrongUse(option: string, problem: string, hint: string): Advised {
  return new Advised(new AbstractRuntimeError("INVALID_OPTION", { option, problem }), hint);
}

/** What `--json` prints, as `{ "error": ... }`. */
export interface Problem {
  code: string;
  /** The fact alone. */
  message: string;
  /** The next step. */
  hint: string;
  fields: object;
}

/** @param command The command that was asked for, and @param store its `--store`, where they are known. */
export function problemOf(error: unknown, command?: string, store?: string): Problem {
  const help = `See \`abstractruntime ${command ? `${command} ` : ""}--help\`.`;
  if (error instanceof Advised) return { ...ownProblem(error.error, store), hint: error.hint };
  if (isError(error)) return ownProblem(error, store, help);
  if (error instanceof CommanderError) {
    const [fact = "", ...suggestion] = error.message.replace(/^error: /, "").split("\n");
    const hint = [...suggestion.map((line) => line.replace(/^\((.*)\)$/, "$1")), help].join(" ");
    return { code: "INVALID_OPTION", message: withoutPoint(fact), hint, fields: {} };
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return {
    code: "UNEXPECTED",
    message: withoutPoint(message),
    hint: "Run it again with --debug for the stack; nothing that was acknowledged is lost.",
    fields: {},
  };
}

/** 2 when the command line itself cannot be carried out, 1 when what it asked for failed. */
export function exitCodeOf({ code }: Problem): number {
  return code === "INVALID_OPTION" || code === "FILE_INVALID" ? 2 : 1;
}

/** With `json` the problem is the one value on stdout, so that a program always reads exactly one. Otherwise it goes to stderr. */
export function tell(terminal: Terminal, problem: Problem, json: boolean): void {
  if (json) return terminal.json({ error: problem });
  terminal.note(`${problem.code}: ${problem.message.replaceAll("\n", " ")}.`, "red");
  terminal.note(problem.hint);
}

function ownProblem(error: AbstractRuntimeError, store?: string, help = ""): Problem {
  const { code, fields, message } = error;
  const fact = message.slice(`${code}: `.length, message.length - `. ${error.hint}`.length);
  const hint = code === "INVALID_OPTION" && !(fields as { suggestion?: string }).suggestion ? help : error.hint;
  return { code, message: withoutPoint(fact), hint: commandHint(error, store) ?? hint, fields };
}

/** Next steps that the library names as calls, as commands. */
function commandHint(error: AbstractRuntimeError, store = defaultStore): string | undefined {
  const runId = (error.fields as { runId?: string }).runId ?? "RUN";
  const there = store === defaultStore ? "" : ` --store ${shellWord(withoutPassword(store))}`;
  const why = `\`abstractruntime why ${shellWord(runId)}${there}\``;
  if (isError(error, "WAIT_AMBIGUOUS"))
    return `Name the one to answer with --key, for example --key ${shellWord(error.fields.open[0] ?? "KEY")}.`;
  if (isError(error, "NOT_WAITING") || isError(error, "RUN_BLOCKED") || isError(error, "RUN_BUSY")) return `See ${why}.`;
  if (isError(error, "RUN_ENDED") && error.fields.status === "failed")
    return `Nothing was changed; ${why} says whether it can be tried again.`;
  if (isError(error, "FORK_OPEN_EFFECTS"))
    return "Add --restart, which runs the step again that requested them, or name a record before it with --at. Nothing was started.";
  if (isError(error, "FORK_REFUSED")) return "Name another record with --at; nothing was started.";
  if (isError(error, "RUN_EXISTS") && error.fields.problem.startsWith("a ledger"))
    return "It is unchanged; nothing of the file or the other store was brought in.";
  if (isError(error, "RUN_EXISTS"))
    return "Choose another --id, or leave --vars out to go on with the existing run; it is unchanged.";
  return undefined;
}

function withoutPoint(text: string): string {
  return text.endsWith(".") ? text.slice(0, -1) : text;
}

/** A word as a shell reads it, so that a printed command can be pasted whatever stands in the data. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
