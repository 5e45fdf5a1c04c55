import { isError } from "../src/index.ts";

/** "ok", or the code that it was refused with. */
export function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "ok",
    (error: unknown) => (isError(error) ? error.code : String(error)),
  );
}
