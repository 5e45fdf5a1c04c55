/** The code of this process: its workflows and effects, by name. */
import { hash } from "node:crypto";
import { type AnyEffect, type EffectDefinition, isDefinedEffect } from "../kernel/effect.ts";
import { AbstractRuntimeError, invalidOption } from "../kernel/errors.ts";
import { nearest } from "../kernel/nearest.ts";
import { formatVersion } from "../kernel/record.ts";
import type { Workflow } from "../kernel/workflow.ts";
import { scheduleWorkflow } from "./schedules/workflow.ts";

export class Code {
  readonly #workflows = new Map<string, Workflow>([[scheduleWorkflow.id, scheduleWorkflow]]);
  readonly #effects = new Map<string, EffectDefinition>();
  /** The fingerprint, until another workflow comes. */
  #named: string | undefined;

  /** @throws INVALID_OPTION, WORKFLOW_INVALID */
  constructor(workflows: readonly Workflow[], effects: readonly AnyEffect[]) {
    if (!Array.isArray(workflows)) refuse("workflows", "workflows is a list, such as [order]");
    if (!Array.isArray(effects)) refuse("effects", "effects is a list, such as [charge]");
    for (const workflow of workflows) {
      if (!isWorkflow(workflow)) refuse("workflows", "workflows holds something that defineWorkflow did not make");
      this.register(workflow);
    }
    for (const effect of effects) {
      if (!isDefinedEffect(effect)) refuse("effects", "effects holds something that defineEffect did not make");
      const { type, declared } = effect.definition;
      if (declared)
        refuse(
          "effects",
          `effects holds what says that workflows use "${type}", and not its handler; that is what a runtime takes`,
        );
      if ((this.#effects.get(type) ?? effect.definition) !== effect.definition)
        refuse("effects", `effects holds two handlers of "${type}"; a runtime has one of each type`);
      this.#effects.set(type, effect.definition);
    }
    for (const { undo } of [...this.#effects.values()]) {
      if (isDefinedEffect(undo) && !this.#effects.has(undo.definition.type))
        this.#effects.set(undo.definition.type, undo.definition);
    }
  }

  workflow(id: string): Workflow | undefined {
    return this.#workflows.get(id);
  }

  /** For stores: all that may be driven here. */
  get workflowIds(): string[] {
    return [...this.#workflows.keys()];
  }

  /** For messages: what the runtime brings along itself is nobody's mistyped name. */
  get knownIds(): string[] {
    return this.workflowIds.filter((id) => id !== scheduleWorkflow.id);
  }

  /** A workflow's own effects go before those for all. */
  effect(type: string, workflow: Workflow): EffectDefinition | undefined {
    const own = workflow.effects.get(type);
    return own && !own.declared ? own : this.#effects.get(type);
  }

  get effects(): EffectDefinition[] {
    return [...this.#workflows.values()].flatMap(({ effects }) => [...effects.values()]).concat(...this.#effects.values());
  }

  /** The workflow that a start names or brings along. @throws WORKFLOW_UNKNOWN, WORKFLOW_INVALID */
  take(given: Workflow | string): Workflow {
    const id = typeof given === "string" ? given : given?.id;
    return this.#workflows.get(id) ?? (isWorkflow(given) ? this.register(given) : this.unknown(String(id)));
  }

  /** @throws WORKFLOW_INVALID when another workflow has its id. */
  register(workflow: Workflow): Workflow {
    const known = this.#workflows.get(workflow.id);
    if (known && known !== workflow)
      throw new AbstractRuntimeError("WORKFLOW_INVALID", { workflowId: workflow.id, problem: "two workflows have this id" });
    this.#workflows.set(workflow.id, workflow);
    this.#named = undefined;
    return workflow;
  }

  unknown(workflowId: string): never {
    const known = this.knownIds;
    const suggestion = nearest(workflowId, known);
    throw new AbstractRuntimeError("WORKFLOW_UNKNOWN", { workflowId, known, ...(suggestion ? { suggestion } : {}) });
  }

  /**
   * Names this code: other code may be able to go on where it is not. The texts of functions count, so that a mended migration is
   * tried; so does the record format, since a version that reads newer records has another one.
   */
  get fingerprint(): string {
    this.#named ??= hash("sha256", JSON.stringify(this.#described())).slice(0, 16);
    return this.#named;
  }

  #described(): unknown {
    const workflows = [...this.#workflows.values()].map(({ id, version, nodes, effects, migrations, onCancel }) => [
      id,
      version,
      onCancel,
      [...nodes].map(([name, { run }]) => JSON.stringify([name, String(run)])).sort(),
      [...effects.keys()].sort(),
      [...migrations].map(([from, step]) => [from, step.to, step.nodes, String(step.vars)]),
    ]);
    return [formatVersion, workflows.map((workflow) => JSON.stringify(workflow)).sort(), [...this.#effects.keys()].sort()];
  }
}

function isWorkflow(value: unknown): value is Workflow {
  const { id, nodes, effects } = (typeof value === "object" && value !== null ? value : {}) as Partial<Workflow>;
  return typeof id === "string" && nodes instanceof Map && effects instanceof Map;
}

function refuse(option: string, problem: string): never {
  throw invalidOption(option, problem);
}
