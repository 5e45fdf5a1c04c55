/**
 * Errors are data with an address: one base class, a stable `code`, typed fields, and a message that says the
 * fact and then the next step. The codes stand in `catalogue.ts`.
 */
import type { Json } from "./json.ts";
import { type Say, catalogue, cut } from "./catalogue.ts";
import { nearest } from "./nearest.ts";

export type ErrorCode = keyof typeof catalogue;
export type ErrorFields<C extends ErrorCode> = Parameters<(typeof catalogue)[C]["fact"]>[0];

/** The one class this library throws. Match on `code`; `fields` holds what the message was made from. */
export class AbstractRuntimeError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = "AbstractRuntimeError";
  readonly code: C;
  readonly fields: ErrorFields<C>;
  /** The next step, alone. */
  readonly hint: string;
  /** The message without its code: for quoting in another one. */
  readonly problem: string;
  /** JSON that stands beside it in records, for programs. */
  declare details?: Json;

  constructor(code: C, fields: ErrorFields<C>, cause?: unknown) {
    const { fact, next } = catalogue[code] as { fact: Say<ErrorFields<C>>; next: Say<ErrorFields<C>> };
    const hint = next(fields);
    // A fact that quotes another message may end in a full stop of its own.
    const problem = `${fact(fields).replace(/\.+$/, "")}. ${hint}`;
    super(`${code}: ${problem}`, cause === undefined ? undefined : { cause });
    this.problem = problem;
    this.code = code;
    this.fields = fields;
    this.hint = hint;
  }
}

/** Whether `error` is ours, and, when `code` is given, has that code. Works across copies of this package. */
export function isError<C extends ErrorCode>(error: unknown, code?: C): error is AbstractRuntimeError<C> {
  try {
    return (
      error instanceof Error &&
      error.name === "AbstractRuntimeError" &&
      (code === undefined || (error as { code?: unknown }).code === code)
    );
  } catch {
    // What is thrown may be hostile (a revoked proxy): it is then not ours.
    return false;
  }
}

/** For whatever a call was given and cannot be. */
export function invalidOption(option: string, problem: string, suggestion?: string): AbstractRuntimeError<"INVALID_OPTION"> {
  return new AbstractRuntimeError("INVALID_OPTION", { option, problem, ...(suggestion ? { suggestion } : {}) });
}

/** What a record keeps of an error: data, never an object with behaviour. */
export interface ErrorData {
  name: string;
  code?: string;
  message: string;
  stack?: string;
  /** What `fail({ details })` gave, or an error of ours. */
  details?: Json;
}

/** Turns anything thrown into bounded data: texts are cut at 8 KiB; no getter and no proxy can make it throw. */
export function errorData(thrown: unknown): ErrorData {
  try {
    if (thrown instanceof Error) {
      const { code, stack } = thrown as { code?: unknown; stack?: unknown };
      return {
        name: cut(String(thrown.name)),
        ...(typeof code === "string" || typeof code === "number" ? { code: cut(String(code)) } : {}),
        message: cut(String(thrown.message)),
        ...(typeof stack === "string" ? { stack: cut(stack) } : {}),
        ...(thrown instanceof AbstractRuntimeError && thrown.details !== undefined ? { details: thrown.details } : {}),
      };
    }
    const text = typeof thrown === "object" ? (JSON.stringify(thrown) ?? String(thrown)) : String(thrown);
    return { name: "Error", message: cut(text) };
  } catch {
    return { name: "Error", message: `a value was thrown that cannot be read (${typeof thrown})` };
  }
}

/** Refuses a key that an options object does not have, naming the nearest one that it has. */
export function checkOptions(options: object, known: readonly string[], where: string): void {
  if (typeof options !== "object" || options === null)
    throw invalidOption(
      where,
      `${where} takes an object of options, and not ${options === null || options === undefined ? options : `a ${typeof options}`}`,
    );
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    const suggestion = nearest(key, known);
    throw invalidOption(key, `Unknown option "${key}" in ${where}`, suggestion);
  }
}
