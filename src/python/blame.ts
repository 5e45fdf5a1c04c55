/** Whether an error is one file's or one run's, so that the others go on, or the store's, and ends everything. */
import { isError } from "../kernel/errors.ts";
import { Unusable } from "./shape.ts";

const codes = [
  "ARTIFACT_CORRUPT",
  "ARTIFACT_MISSING",
  "FORMAT_NEWER",
  "INVALID_OPTION",
  "JSON_TOO_DEEP",
  "NOT_JSON",
  "RECORD_CORRUPT",
  "RECORDS_ARCHIVED",
  "RESULT_KEY_INVALID",
  "RUN_BUSY",
  "TOO_LARGE",
] as const;

/** What is wrong with it. Anything else is thrown on. */
export function problemOf(error: unknown): string {
  // The stack is used up.
  if (error instanceof RangeError) return `it is nested too deeply: ${error.message}`;
  if (error instanceof Unusable || codes.some((code) => isError(error, code))) return (error as Error).message;
  throw error;
}
