/** What undoes a completed effect, as the effect's own code says it. */
import type { EffectDefinition } from "./effect.ts";
import { type ErrorData, errorData } from "./errors.ts";
import { cloneJson } from "./json.ts";
import type { Needs } from "./needs.ts";
import type { Effect } from "./plan.ts";
import type { Undoable } from "./run.ts";
import type { Blocked } from "./transition.ts";

type Undoing = { blocked: Blocked; request?: never } | { blocked?: undefined; request: Effect | { error: ErrorData } };

/** The effect that is requested, or what went wrong; or why the run has to wait for other code. */
export function undoRequest({ type, payload, result }: Undoable, needs: Needs): Undoing {
  const definition = needs.definition(type);
  if (!definition) return { blocked: needs.unknownEffect(type) };
  const request = undoOf({ type, payload, result }, definition);
  if ("error" in request) return { request };
  try {
    const blocked = needs.missing(request.type, request.payload);
    return blocked ? { blocked } : { request };
  } catch (error) {
    return { request: { error: errorData(error) } };
  }
}

/** What a definition says, or why that cannot be requested. */
export function undoOf(
  { type, payload, result }: Pick<Undoable, "type" | "payload" | "result">,
  definition: EffectDefinition | undefined,
): Effect | { error: ErrorData } {
  try {
    if (!definition?.undo) throw new Error(`effect "${type}" does not say any more how it is undone`);
    const request = definition.undo({ payload: cloneJson(payload), result: cloneJson(result) });
    if (typeof request?.type !== "string") throw new Error(`the undo of effect "${type}" did not return an effect`);
    return request;
  } catch (error) {
    return { error: errorData(error) };
  }
}
