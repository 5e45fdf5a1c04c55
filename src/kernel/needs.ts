/** What a run needs of the code in this process: its workflow, its effects, its children's workflows. What is missing blocks it (L7). */
import { childWorkflowOf, startsChildren } from "./child.ts";
import type { DriveHost } from "./drive-host.ts";
import { type EffectDefinition, isSpeculative } from "./effect.ts";
import { AbstractRuntimeError } from "./errors.ts";
import { nearest } from "./nearest.ts";
import type { Misfit } from "./migrate.ts";
import { builtInEffects } from "./plan.ts";
import { isWindingUp, type OpenEffect, payloadOf, type RunState } from "./run.ts";
import { isDecided } from "./step.ts";
import type { Blocked } from "./transition.ts";
import type { Workflow } from "./workflow.ts";

export class Needs {
  readonly workflow: Workflow | undefined;
  readonly #host: DriveHost;
  readonly #runId: string;
  readonly #workflowId: string;

  constructor(host: DriveHost, { runId, workflowId }: RunState) {
    this.#host = host;
    this.#runId = runId;
    this.#workflowId = workflowId;
    this.workflow = host.workflow(workflowId);
  }

  definition(type: string): EffectDefinition | undefined {
    return this.workflow && this.#host.effect(type, this.workflow);
  }

  /** Whether its handler may touch the world. */
  isExternal(effect: OpenEffect): boolean {
    const definition = this.definition(effect.type);
    return definition !== undefined && !isSpeculative(definition, () => payloadOf(effect));
  }

  /** A backoff is over and the code for the next attempt is not here: the run is blocked before the attempt is recorded. */
  unknownRetry(state: RunState, now: number): Blocked | undefined {
    for (const effect of state.open.values()) {
      const { phase, retryAt, type } = effect;
      if (phase !== "backing_off" || (retryAt as number) > now || isWindingUp(state) || isDecided(state, effect)) continue;
      if (!isBuiltIn(type) && !this.definition(type)) return this.unknownEffect(type);
    }
    return undefined;
  }

  /** Whether the store has transactions for handlers. */
  get hasTransactions(): boolean {
    return this.#host.store.transact !== undefined;
  }

  /** What a request needs and this process does not have, members included: a handler, or the workflow of a child. */
  missing(type: string, payload: unknown): Blocked | undefined {
    if (type === "all" || type === "any") {
      const members = (payload as { effects?: unknown } | undefined)?.effects;
      if (!Array.isArray(members)) return undefined;
      for (const member of members) {
        const missing = typeof member?.type === "string" ? this.missing(member.type, member.payload) : undefined;
        if (missing) return missing;
      }
      return undefined;
    }
    if (startsChildren(type)) {
      const childWorkflowId = childWorkflowOf(payload);
      return childWorkflowId === undefined || this.#host.workflow(childWorkflowId)
        ? undefined
        : this.unknownWorkflow(childWorkflowId);
    }
    if (isBuiltIn(type)) return undefined;
    const definition = this.definition(type);
    if (!definition) return this.unknownEffect(type);
    return definition.transactional && !this.hasTransactions ? this.noTransactions(type) : undefined;
  }

  /** The run began elsewhere, or its effect was another one then: `createRuntime` refuses such code over such a store. */
  noTransactions(effectType: string): Blocked {
    const fields = { store: this.#host.store.name, what: `effect "${effectType}"` };
    return this.#blocked(new AbstractRuntimeError("TRANSACTION_UNSUPPORTED", fields));
  }

  unknownEffect(effectType: string): Blocked {
    const declared = this.workflow?.effects.has(effectType) === true;
    const suggestion = declared ? undefined : nearest(effectType, [...(this.workflow?.effects.keys() ?? []), ...builtInEffects]);
    const fields = { effectType, runId: this.#runId, declared, ...(suggestion ? { suggestion } : {}) };
    return this.#blocked(new AbstractRuntimeError("EFFECT_UNKNOWN", fields));
  }

  /** @param workflowId Default: the run's own. */
  unknownWorkflow(workflowId = this.#workflowId): Blocked {
    const known = this.#host.workflowIds?.() ?? [];
    const suggestion = nearest(workflowId, known);
    return this.#blocked(
      new AbstractRuntimeError("WORKFLOW_UNKNOWN", { workflowId, known, ...(suggestion ? { suggestion } : {}) }),
    );
  }

  misfit(misfit: Misfit): Blocked {
    const where = { runId: this.#runId, workflowId: this.#workflowId };
    return this.#blocked(new AbstractRuntimeError("WORKFLOW_INCOMPATIBLE", { ...where, ...misfit }));
  }

  #blocked(error: AbstractRuntimeError): Blocked {
    return { code: error.code, problem: error.problem, fingerprint: this.#host.fingerprint, quarantine: false };
  }
}

export function isBuiltIn(type: string): boolean {
  return (builtInEffects as readonly string[]).includes(type);
}
