/** What the file system says, as our own codes. Shared by the stores that keep files. */
import { AbstractRuntimeError } from "../kernel/errors.ts";

export function fileError(error: unknown, store: string): unknown {
  if (error instanceof AbstractRuntimeError) return error;
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (code === "EACCES" || code === "EROFS" || code === "EPERM")
    return new AbstractRuntimeError("STORE_READ_ONLY", { store }, error);
  if (code === "ENOSPC" || code === "EDQUOT") return new AbstractRuntimeError("STORE_FULL", { store }, error);
  return new AbstractRuntimeError(
    "STORE_UNAVAILABLE",
    { store, problem: error instanceof Error ? error.message : String(error) },
    error,
  );
}
