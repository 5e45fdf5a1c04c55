/**
 * Approvals: a person decides about a call before it is carried out.
 *
 * A1. The decision is about exactly this call: the wait shows it with its digest, and an answer with another digest is refused.
 * A2. What was decided holds, whatever the code says later about who is to be asked.
 * A3. Changed arguments are checked as those of the model are; ones that do not fit are asked for again.
 */
import { createHash } from "node:crypto";
import { type EffectContext, type Json, type JsonObject, nearest, wait, type WaitRequest } from "../../index.ts";
import { checkOptions, refuse } from "../options.ts";
import type { ToolApproval, ToolCall } from "../tool-call.ts";
import type { ListingExecutor, ToolExecutor } from "./executor.ts";
import { layerAnswers, layerKey } from "./layer.ts";
import { withArgumentsRead } from "./read-call.ts";

export interface ApprovalOptions {
  /** Which calls somebody decides about: all of them, those of the tools named, or those that a function says. */
  needsApproval: true | readonly string[] | ((call: ToolCall) => boolean | PromiseLike<boolean>);
}

/**
 * Whether all names are those of tools: a misspelt one would let its tool run unasked.
 *
 * @throws INVALID_OPTION, and why the names cannot be checked, where one may mean the tool called.
 */
async function areNamesKnown(names: readonly string[], executor: ToolExecutor, call: ToolCall): Promise<boolean> {
  let known: string[] | undefined;
  try {
    known = (await executor.tools?.())?.map(({ name }) => name);
  } catch (error) {
    // A server that is away is no reason to carry out no tool of any other.
    if (names.some((name) => nearest(name, [call.name]) !== undefined)) throw error;
    return false;
  }
  const unknown = known && names.find((name) => !known.includes(name));
  if (unknown === undefined) return true;
  refuse(
    "needsApproval",
    `withApproval({ needsApproval }) names "${unknown}", which is no tool here`,
    nearest(unknown, known ?? []),
  );
}

/**
 * An executor whose calls wait for a person, who allows them, denies them with a reason, or changes their arguments:
 * `runtime.respond(runId, "allow")`, or `{ decision: "allow" | "deny", reason?, arguments?, digest? }`. What the executor itself has
 * somebody decide about stays so.
 *
 * @throws INVALID_OPTION
 */
export function withApproval(executor: ListingExecutor, options: ApprovalOptions): ListingExecutor;
export function withApproval(executor: ToolExecutor, options: ApprovalOptions): ToolExecutor;
export function withApproval(executor: ToolExecutor, options: ApprovalOptions): ToolExecutor {
  if (typeof executor?.execute !== "function") refuse("executor", "withApproval() needs an executor, such as localTools() makes");
  checkOptions(options, ["needsApproval"], "withApproval()");
  const { needsApproval } = options;
  if (needsApproval !== true && !Array.isArray(needsApproval) && typeof needsApproval !== "function")
    refuse("needsApproval", "needsApproval is true, a list of names, or a function of the call");
  let areKnown = false;
  const isAsked = async (call: ToolCall): Promise<boolean> => {
    if (typeof needsApproval !== "function") {
      if (needsApproval === true || needsApproval.includes(call.name)) return true;
      if (!areKnown) areKnown = await areNamesKnown(needsApproval, executor, call);
      return false;
    }
    if (await executor.check?.(call)) return false;
    // A function that looks at arguments finds nothing in a broken text, and whoever carries the call out may find something.
    return typeof call.arguments === "string" || needsApproval(call);
  };
  return {
    execute: (call, context) => executor.execute(call, context),
    check: async (call) => executor.check?.(call),
    needsApproval: async (call) => (await isAsked(call)) || ((await executor.needsApproval?.(call)) ?? false),
    speculative: (call) => executor.speculative?.(call),
    exclusive: (call) => executor.exclusive?.(call),
    ...(executor.tools ? { tools: () => executor.tools?.() ?? [] } : {}),
  };
}

/** The waits in which people decide about calls, among those of an effect. */
export const approvals = "approval";

/**
 * What was decided about a call, or the wait for it. Where nobody is asked, there is no approval.
 *
 * @param isSpent It is not to be carried out any more: nobody is asked, and nothing is checked.
 */
export async function decide(
  executor: ToolExecutor,
  call: ToolCall,
  context: EffectContext,
  isSpent: boolean,
): Promise<{ approval?: ToolApproval } | WaitRequest> {
  // Copies: what whoever looks at a call does to it is neither shown nor carried out.
  const check = async (looked: ToolCall) => executor.check?.(structuredClone(looked));
  const digest = callDigest(call);
  // Those before the last one were refused, and stay so: they are not what the person said in the end.
  const answer = layerAnswers(approvals, context).at(-1);
  let problem: string | undefined;
  const { decision, reason, arguments: given, digest: meant = digest } = readAnswer(answer?.payload ?? {});
  if (answer && meant === digest) {
    const { actorId } = answer;
    const isChanged = decision === "allow" && given !== undefined;
    const { arguments: changed } = isChanged ? await withArgumentsRead({ ...call, arguments: given }, context) : call;
    const refused = isChanged && !isSpent ? await check({ ...call, arguments: changed }) : undefined;
    if (!refused)
      return {
        approval: {
          decision,
          ...(actorId === undefined ? {} : { actorId }),
          ...(reason === undefined ? {} : { reason }),
          ...(isChanged ? { arguments: changed } : {}),
        },
      };
    problem = refused.error?.message;
  }
  // What was let through before, and waits for something else since, stays so (A2). Nobody need decide about what cannot be carried
  // out: the executor says what is wrong with it.
  const isUnderWay = context.answers.length > 0 || context.waited !== undefined || context.timedOut || context.cancelled;
  if (isSpent) return {};
  if (!answer && (isUnderWay || !(await executor.needsApproval?.(structuredClone(call))) || (await check(call)))) return {};
  return question(call, digest, context, problem);
}

function question(call: ToolCall, digest: string, context: EffectContext, problem: string | undefined): WaitRequest {
  const { name, callId, arguments: given } = call;
  const lines = [
    ...(problem === undefined ? [] : [`The changed arguments were refused: ${problem}`]),
    ...(context.uncertain ? ["An earlier attempt was cut off: it may have been carried out already."] : []),
    `Allow tool ${JSON.stringify(name)} with ${brief(given)}?`,
  ];
  return wait({
    reason: "user",
    again: true,
    waitKey: layerKey(approvals, context),
    prompt: lines.join(" "),
    choices: ["allow", "deny"],
    allowFreeText: true,
    schema: answerSchema(digest),
    details: { toolCall: { name, callId, arguments: given }, digest, ...(problem === undefined ? {} : { problem }) },
  });
}

function answerSchema(digest: string): JsonObject {
  const decision = { enum: ["allow", "deny"] };
  return {
    type: "object",
    properties: { text: decision, decision, reason: { type: "string" }, arguments: {}, digest: { const: digest } },
    additionalProperties: false,
    oneOf: [{ required: ["text"] }, { required: ["decision"] }],
  };
}

function readAnswer(payload: Json): { decision: "allow" | "deny"; reason?: string; arguments?: Json; digest?: string } {
  const { text, decision = text, ...rest } = payload as Record<string, never>;
  // What is not said plainly is not allowed.
  return { ...rest, decision: decision === "allow" ? "allow" : "deny" };
}

/** Names the call that was shown: its name and its arguments. */
export function callDigest({ name, arguments: given }: ToolCall): string {
  return createHash("sha256")
    .update(JSON.stringify([name, given]))
    .digest("hex");
}

/** Long texts are cut one by one, so that none of them hides what stands behind it. */
function brief(given: Json): string {
  const text = JSON.stringify(given, (_, part: Json) => (typeof part === "string" ? cut(part, 100) : part));
  return cut(text, 2_000);
}

function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most).toWellFormed()}... (${text.length - most} more characters)` : text;
}
