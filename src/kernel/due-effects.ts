/** Which of a run's effects are to begin now. What an earlier driver had begun, or a cancel has overtaken, is settled instead. */
import { startsChildren } from "./child.ts";
import { interrupted } from "./execute.ts";
import type { Executions } from "./executions.ts";
import { isBuiltIn, type Needs } from "./needs.ts";
import { isLeftBehind, isWindingUp, type OpenEffect, payloadOf, type RunState, wantsChildren } from "./run.ts";
import { isDecided, notBegun } from "./step.ts";
import type { Blocked } from "./transition.ts";

interface DueEffects {
  effects: OpenEffect[];
  /** Whether the handler of one of them may touch the world. */
  areExternal: boolean;
}

/**
 * What is due and does not execute yet, or why the run has to wait for other code.
 *
 * @param inherited Attempts that were under way when an earlier driver ended. Those that are settled are taken out.
 * @param resting Leaves what an earlier driver began, and what has no code here, for later.
 */
export function dueEffects(
  state: RunState,
  needs: Needs,
  executions: Executions,
  inherited: Set<string>,
  resting: boolean,
): DueEffects | Blocked | undefined {
  const effects: OpenEffect[] = [];
  let areExternal = false;
  const windsUp = isWindingUp(state);
  for (const effect of state.open.values()) {
    const { id, type } = effect;
    if (effect.phase !== "executing" && !wantsChildren(effect)) continue;
    if (executions.has(id)) continue;
    if (isDecidedFor(state, effect, inherited)) {
      // It is not begun any more, and called off.
      if (effect.leaves && isLeftBehind(state, effect)) executions.settle(id, notBegun);
      continue;
    }
    const definition = needs.definition(type);
    if (startsChildren(type)) {
      const missing = needs.missing(type, payloadOf(effect));
      if (windsUp) {
        if (effect.phase === "executing") executions.settle(id, notBegun);
      } else if (missing) return resting ? undefined : missing;
      // Starting a child again finds the one that was started, so it is simply begun anew.
      else if (!resting || effect.phase === "executing") effects.push(effect);
    } else if (windsUp || effect.parting) {
      const wasUnderWay = inherited.delete(id);
      if (effect.parting && definition && !wasUnderWay) {
        effects.push(effect);
        // What calls off may be harmless itself; that nobody waits for it any more is to be durable first.
        areExternal = true;
      } else executions.settle(id, wasUnderWay ? interrupted(definition, effect) : notBegun);
    } else if (!definition && !isBuiltIn(type)) {
      return resting ? undefined : needs.unknownEffect(type);
    } else if (definition?.transactional && !needs.hasTransactions) {
      return resting ? undefined : needs.noTransactions(type);
    } else if (inherited.has(id) && definition) {
      if (resting) continue;
      inherited.delete(id);
      executions.settle(id, interrupted(definition, effect));
    } else {
      effects.push(effect);
      areExternal ||= needs.isExternal(effect);
    }
  }
  return { effects, areExternal };
}

/** Whether an effect need not be begun any more: its group is decided. One that may have happened is still found out about. */
function isDecidedFor(state: RunState, effect: OpenEffect, inherited: ReadonlySet<string>): boolean {
  return !effect.parting && !inherited.has(effect.id) && isDecided(state, effect);
}
