/** What a typed event carries. */
import { parseJson } from "../index.ts";
import { wrongUse } from "./problem.ts";

/** JSON of any kind; what is no JSON and does not look like it is text. Nothing given is null. @throws INVALID_OPTION */
export function eventPayload(text: string | undefined): unknown {
  if (text === undefined) return null;
  try {
    return parseJson(text);
  } catch (error) {
    // Somebody who opens a brace means JSON: as text it would reach a run that expects something else.
    if (!/^\s*[[{"]/.test(text)) return text;
    const hint = `Write it as one word for the shell: '{"amount":5}'; or as a JSON text: '"[note]"'.`;
    throw wrongUse("PAYLOAD", `PAYLOAD is not JSON: ${(error as Error).message}`, hint);
  }
}
