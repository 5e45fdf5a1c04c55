/** What every command is given, and how one names the next. */
import type { Command } from "commander";
import { withoutPassword } from "./open-store.ts";
import { shellWord } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

export const defaultStore = "sqlite:.abstractruntime/runs.db";

export interface Cli {
  readonly terminal: Terminal;
  /** Print JSON, and ask nobody. */
  readonly json: boolean;
  readonly debug: boolean;
  /** As given with `--store`. */
  readonly store: string;
}

/** Makes what commander calls out of what answers with an exit code. Arguments come first, then the options, as commander gives them. */
export type Act = <Args extends unknown[]>(
  run: (cli: Cli, ...args: Args) => Promise<number>,
) => (...args: [...Args, Command]) => Promise<void>;

/** Adds a command to the program. */
export type AddCommand = (program: Command, act: Act) => void;

/** A command to go on with, as text that can be pasted. Options that are undefined are left out. */
export function nextCommand(
  cli: Cli,
  name: string,
  args: readonly string[],
  options: Record<string, string | readonly string[] | true | undefined> = {},
): string {
  const given: Record<string, string | readonly string[] | true | undefined> = {
    ...options,
    ...(cli.store === defaultStore ? {} : { store: withoutPassword(cli.store) }),
  };
  const flags = Object.entries(given).flatMap(([key, value]) =>
    value === undefined ? [] : value === true ? [`--${key}`] : [value].flat().flatMap((one) => [`--${key}`, shellWord(one)]),
  );
  const words = args.map(shellWord);
  const rest = args.some((word) => word.startsWith("-")) ? [...flags, "--", ...words] : [...words, ...flags];
  return ["abstractruntime", name, ...rest].join(" ");
}
