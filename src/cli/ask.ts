/** Asking the person at the terminal. */
import { parseJson } from "../index.ts";
import type { Wait } from "./explain.ts";
import { asksAboutUncertainty } from "./explain-effect.ts";
import { payloadOf } from "./question.ts";
import { printable, printableLines, type Terminal } from "./terminal.ts";

/** The answer to a wait, or undefined when the person would rather not (Escape, Ctrl-C). */
export async function ask(terminal: Terminal, wait: Wait): Promise<{ payload: unknown } | undefined> {
  if (asksAboutUncertainty(wait)) return askAboutUncertainty(terminal, wait);
  const message = wait.prompt ?? `${wait.reason} ${wait.waitKey}`;
  if (wait.choices && wait.choices.length > 0) {
    const other = wait.allowFreeText ? ["Something else ..."] : [];
    const chosen = await choose(terminal, message, [...wait.choices, ...other]);
    if (chosen === undefined) return undefined;
    const choice = wait.choices[chosen];
    if (choice !== undefined) return { payload: choice };
  }
  const typed = await type(terminal, message, wait.schema ? 'JSON, such as {"text": "..."}' : undefined);
  return typed === undefined ? undefined : { payload: payloadOf(typed, wait) };
}

/** Which of several waits to answer. */
export async function askWhich(terminal: Terminal, waits: readonly Wait[]): Promise<Wait | undefined> {
  const chosen = await choose(
    terminal,
    "Several questions are open. Which one?",
    waits.map((wait) => wait.prompt ?? wait.waitKey),
  );
  return chosen === undefined ? undefined : waits[chosen];
}

/** Whether the person says yes. Anything else is a no. */
export async function confirmed(terminal: Terminal, message: string): Promise<boolean> {
  const { confirm } = await import("@clack/prompts");
  const { stdin: input, stdout: output } = terminal.io;
  return (await confirm({ message: printableLines(message), initialValue: false, input, output })) === true;
}

async function askAboutUncertainty(terminal: Terminal, wait: Wait): Promise<{ payload: unknown } | undefined> {
  const chosen = await choose(terminal, wait.prompt ?? wait.waitKey, ["Try it again", "It happened: give its result"]);
  if (chosen === undefined) return undefined;
  if (chosen === 0) return { payload: { retry: true } };
  const typed = await type(terminal, "What did it give?", "JSON or text");
  if (typed === undefined) return undefined;
  try {
    return { payload: { result: parseJson(typed) } };
  } catch {
    return { payload: { result: typed } }; // Not JSON, so it is text.
  }
}

/** Index of the label chosen. */
async function choose(terminal: Terminal, message: string, labels: readonly string[]): Promise<number | undefined> {
  const { isCancel, select } = await import("@clack/prompts"); // Most commands ask nothing, and need not wait for it.
  const options = labels.map((label, value) => ({ value, label: printable(label) }));
  const chosen = await select({
    message: printableLines(message),
    options,
    input: terminal.io.stdin,
    output: terminal.io.stdout,
  });
  return isCancel(chosen) ? undefined : chosen;
}

async function type(terminal: Terminal, message: string, placeholder?: string): Promise<string | undefined> {
  const { isCancel, text } = await import("@clack/prompts");
  const typed = await text({
    message: printableLines(message),
    ...(placeholder === undefined ? {} : { placeholder }),
    validate: (value) => (value ? undefined : "Type an answer, or leave with Ctrl-C."),
    input: terminal.io.stdin,
    output: terminal.io.stdout,
  });
  return isCancel(typed) ? undefined : typed;
}
