/**
 * Packages that only some users need: imported where they are first used, by an `await` in a `try`. Bundlers take such an import for one
 * of a package that may be missing, and refuse any other.
 */
import { AbstractRuntimeError, permanent } from "../index.ts";

/**
 * What to throw when an import has failed: INVALID_OPTION, marked `permanent`, when one of the packages is not installed; otherwise
 * what importing threw.
 *
 * @param option What needs it.
 * @param need What it is for, such as "mcpTools() speaks to servers with it".
 */
export function withoutPeer(cause: unknown, packages: readonly string[], option: string, need: string): unknown {
  // Within a bundle, without the ERR_.
  if (!(cause as NodeJS.ErrnoException).code?.endsWith("MODULE_NOT_FOUND")) return cause;
  const names = packages.map((name) => `"${name}"`).join(" and ");
  const problem = `${names} ${packages.length > 1 ? "are" : "is"} not installed, and ${need}: run \`npm install ${packages.join(" ")}\``;
  return permanent(new AbstractRuntimeError("INVALID_OPTION", { option, problem }, cause));
}
