/** What carries tools out: in this process, in another one, at a server, or by hand. */
import type { EffectContext, WaitRequest } from "../../index.ts";
import type { ToolCall, ToolDescription, ToolResult } from "../tool-call.ts";

export interface ToolExecutor {
  /**
   * Carries one call out. Whatever comes of it is a result, failures too. It throws only when `context.signal` has aborted, since
   * what was cut off has no result, and what is marked `definite`, since another attempt may then be made.
   *
   * @returns A result, or a wait `{ again: true }`: it is then called again with what was answered.
   */
  execute(call: ToolCall, context: EffectContext): Promise<ToolResult | WaitRequest>;
  /** What is wrong with a call, as far as that can be told without carrying it out. */
  check?(call: ToolCall): Promise<ToolResult | undefined>;
  /** Whether a person decides about a call before it is carried out. Default: nobody does. */
  needsApproval?(call: ToolCall): boolean | PromiseLike<boolean>;
  /** Whether carrying this call out again harms nobody; undefined for a tool that is not its own, or not known yet. Default: it may. */
  speculative?(call: ToolCall): boolean | undefined;
  /** Of the calls of one run for which this gives the same text, one is carried out at a time. Default: all at once. */
  exclusive?(call: ToolCall): string | undefined;
  /** What models are told. Without it, any name may be one of its tools. */
  tools?(): readonly ToolDescription[] | Promise<readonly ToolDescription[]>;
}

/** An executor that lists its tools. */
export interface ListingExecutor extends ToolExecutor {
  tools(): Promise<ToolDescription[]>;
}
