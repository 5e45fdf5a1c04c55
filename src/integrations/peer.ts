/** Packages that only some users need: loaded where they are first used. */
import { AbstractRuntimeError, permanent } from "../index.ts";

/**
 * @param option What needs it.
 * @param need What it is for, such as "mcpTools() speaks to servers with it".
 * @throws INVALID_OPTION, marked `permanent`, when one of the packages is not installed; what else loading throws.
 */
export async function loadPeer<T>(load: () => Promise<T>, packages: readonly string[], option: string, need: string): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    const names = packages.map((name) => `"${name}"`).join(" and ");
    const problem = `${names} ${packages.length > 1 ? "are" : "is"} not installed, and ${need}: run \`npm install ${packages.join(" ")}\``;
    throw permanent(new AbstractRuntimeError("INVALID_OPTION", { option, problem }, cause));
  }
}
