/** Several executors as one. */
import { refuse } from "../options.ts";
import type { ToolCall, ToolDescription } from "../tool-call.ts";
import { whenUncertain } from "./certainty.ts";
import type { ListingExecutor, ToolExecutor } from "./executor.ts";
import { withMembers } from "./layer.ts";
import { unknownTool } from "./result.ts";

/**
 * An executor with the tools of all these. A call goes to the first one that has a tool of its name; one that does not list its tools,
 * such as `passthroughTools()`, has those of any name and stands last.
 *
 * `tools()` throws INVALID_OPTION when two of them have a tool of the same name.
 *
 * @throws INVALID_OPTION
 */
export function combineTools(...executors: readonly ListingExecutor[]): ListingExecutor;
export function combineTools(...executors: readonly ToolExecutor[]): ToolExecutor;
export function combineTools(...executors: readonly ToolExecutor[]): ToolExecutor {
  if (executors.length === 0 || !executors.every((executor) => typeof executor?.execute === "function"))
    refuse("executors", "combineTools() needs executors, one after the other: combineTools(a, b)");
  for (const executor of executors.slice(0, -1))
    if (!executor.tools) refuse("executors", "combineTools(): an executor that takes tools of any name stands last");
  const last = executors.at(-1) as ToolExecutor;

  /** What each one listed last. */
  const listedBy = new Map<ToolExecutor, ReadonlySet<string>>();
  const owner = async ({ name }: ToolCall): Promise<ToolExecutor | readonly string[]> => {
    const known: string[] = [];
    // One that is away now may be in the middle of this very call, or be worth waiting for: it says so itself.
    let silent: ToolExecutor | undefined;
    for (const executor of executors) {
      try {
        const tools = await executor.tools?.();
        if (!tools) return silent ?? executor;
        const names = new Set(tools.map((tool) => tool.name));
        listedBy.set(executor, names);
        if (names.has(name)) return executor;
        known.push(...names);
      } catch {
        // What was its own a moment ago is nobody else's now.
        if (listedBy.get(executor)?.has(name)) return executor;
        silent ??= executor;
      }
    }
    return silent ?? known;
  };
  /** Who can say at once that a tool is its own: the others may have to ask first. */
  const knower = (call: ToolCall): ToolExecutor =>
    executors.find((executor) => executor.speculative?.(call) !== undefined) ?? last;

  return {
    async execute(call, context) {
      const found = await owner(call);
      if ("execute" in found) return found.execute(call, context);
      // One that was begun may have been carried out, whoever has lost its tool since.
      const begun = context.waited === undefined ? context : withMembers(context, { uncertain: true });
      return whenUncertain(call, begun, "fail") ?? unknownTool(call, found);
    },
    async check(call) {
      const found = await owner(call);
      return "execute" in found ? found.check?.(call) : unknownTool(call, found);
    },
    async needsApproval(call) {
      const found = await owner(call);
      return "execute" in found && ((await found.needsApproval?.(call)) ?? false);
    },
    speculative: (call) => knower(call).speculative?.(call),
    exclusive: (call) => knower(call).exclusive?.(call),
    ...(last.tools ? { tools: () => listed(executors) } : {}),
  };
}

async function listed(executors: readonly ToolExecutor[]): Promise<ToolDescription[]> {
  const lists = await Promise.all(executors.map(async (executor) => executor.tools?.() ?? []));
  const all = lists.flat();
  const names = new Set<string>();
  for (const { name } of all) {
    if (names.has(name))
      refuse("executors", `combineTools(): two executors have a tool "${name}"; give one of them another name`);
    names.add(name);
  }
  return all;
}
