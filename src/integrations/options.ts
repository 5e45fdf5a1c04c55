/** Options objects of the integrations, checked at the door as the runtime's own are. */
import { AbstractRuntimeError, nearest } from "../index.ts";

/** Refuses a key that an options object does not have, naming the nearest one that it has. @throws INVALID_OPTION */
export function checkOptions(options: object, known: readonly string[], where: string): void {
  if (typeof options !== "object" || options === null) refuse("options", `${where} takes an object of options`);
  const key = Object.keys(options).find((name) => !known.includes(name));
  if (key === undefined) return;
  const suggestion = nearest(key, known);
  refuse(key, `Unknown option "${key}" in ${where}`, suggestion);
}

/** @throws INVALID_OPTION */
export function refuse(option: string, problem: string, suggestion?: string): never {
  throw new AbstractRuntimeError("INVALID_OPTION", { option, problem, ...(suggestion ? { suggestion } : {}) });
}
