/**
 * A workflow is a graph of named nodes. Its definition is checked twice: by the compiler, as far as the types of the nodes reach,
 * and when it is made, since plain JavaScript and generated definitions come here too.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { AnyEffect, EffectDefinition } from "./effect.ts";
import type { ErrorData } from "./errors.ts";
import type { BuiltInEffect, StepPlan } from "./plan.ts";
import type { Anything, JsonCheck } from "./typing.ts";
import { readWorkflow } from "./read-workflow.ts";
import type { PlanOf, CompletionOf, NodeCheck } from "./node-check.ts";

/**
 * Defines a workflow. The compiler checks that every node named exists, that results fit the vars they are written to, and that
 * the effects used are among `effects`; the run's output has the type of what the nodes complete with.
 *
 * @throws INVALID_OPTION for unknown keys, WORKFLOW_INVALID for what cannot work.
 */
export function defineWorkflow<
  const Nodes extends Record<string, NodeForm<Vars>>,
  Vars = Record<string, Anything>,
  Input = Vars,
  const Effects extends readonly AnyEffect[] = readonly [],
>(
  definition: WorkflowOptions<Nodes, Vars, Input, Effects>,
): Workflow<Vars, { [Name in keyof Nodes]: CompletionOf<PlanOf<Nodes[Name]>> }[keyof Nodes], Input> {
  return readWorkflow(definition as unknown as Record<string, unknown>) as Workflow<
    Vars,
    { [Name in keyof Nodes]: CompletionOf<PlanOf<Nodes[Name]>> }[keyof Nodes],
    Input
  >;
}

export interface WorkflowOptions<Nodes, Vars, Input, Effects extends readonly AnyEffect[]> {
  /** The name that runs record; 1 to 200 characters. Never change it while there are runs. */
  id: string;
  /** Recorded with each run that starts. Default: 1. */
  version?: number | string;
  /** What the vars are: any Standard Schema whose output is JSON, or `type<T>()` without checks. Default: anything. */
  vars?: StandardSchemaV1<Input, Vars> & JsonCheck<Vars, "vars">;
  /** The node where runs begin. */
  entry: NoInfer<keyof Nodes & string>;
  /** Functions from the run to a plan, or `{ to, run, title, timeoutMs }`. */
  nodes: {
    [Name in keyof Nodes]: NodeCheck<Nodes[Name], Vars, keyof Nodes & string, Effects[number]["effectType"] | BuiltInEffect>;
  };
  /** The effects that its nodes request, built-in ones apart. What undoes them comes along. */
  effects?: Effects;
  /**
   * The node that a run goes to when it is cancelled, once what executes has settled. Whatever the nodes from there come to, the run
   * ends as cancelled. Default: it ends at once.
   */
  onCancel?: NoInfer<keyof Nodes & string>;
  /** How runs of older versions go on, by the version they leave. Runs whose version has no migration go on where node and vars fit. */
  migrations?: { readonly [version: string | number]: Migration };
  /**
   * Dotted paths of vars that `list({ vars })` finds runs by, such as `["customer.id"]`: texts of up to 500 characters, numbers and
   * booleans. A run keeps the paths of the code that started it.
   */
  index?: readonly string[];
  /** For people, in dashboards. Default: the id. */
  title?: string;
}

/** From one version to the next: the new vars, made from the old ones, or more than that. */
export type Migration =
  | ((vars: Anything) => unknown)
  | {
      /** Makes the new vars. Default: they stay. */
      vars?: (vars: Anything) => unknown;
      /** New names of nodes, by their old ones. */
      nodes?: { readonly [oldName: string]: string };
      /** The version that it leads to. Default: the next whole number. */
      to?: number | string;
    };

/** A migration as drivers use it. */
export interface MigrationStep {
  readonly vars?: (vars: Anything) => unknown;
  readonly nodes: Readonly<Record<string, string>>;
  readonly to: string;
}

/** A workflow, checked. The type parameters exist in types only: the vars in nodes, the run's output, and the vars that a start takes. */
export interface Workflow<Vars = Anything, Output = Anything, Input = Vars> {
  readonly id: string;
  readonly version: number | string;
  readonly title?: string;
  readonly entry: string;
  readonly nodes: ReadonlyMap<string, NodeDefinition>;
  readonly effects: ReadonlyMap<string, EffectDefinition>;
  readonly varsSchema?: StandardSchemaV1;
  readonly onCancel?: string;
  /** Dotted paths of the vars that queries find its runs by. */
  readonly index: readonly string[];
  /** By the version they leave. */
  readonly migrations: ReadonlyMap<string, MigrationStep>;
  /** What `to` says of the graph, in the order of the nodes. Nodes without `to` have no edges here. */
  edges(): Edge[];
  readonly [typed]?: { vars: Vars; output: Output; input: Input };
}

export interface Edge {
  from: string;
  to: string;
  label?: string;
}

/** What a node is given. */
export interface NodeContext<Vars> {
  /** The run's variables: change them in place. The record keeps what changed. */
  vars: Vars;
  readonly runId: string;
  readonly workflowId: string;
  readonly nodeId: string;
  /** Number of this node execution, from 1. */
  readonly step: number;
  /** In an `errorNode` or `timeoutNode`: what led here. */
  readonly error?: ErrorData;
  /** The recorded time of this step, in milliseconds since 1970. Nodes read this instead of the clock, so that a repeated step decides alike. */
  readonly now: number;
  readonly actorId?: string;
}

export type NodeHandler<Vars> = (run: NodeContext<Vars>) => StepPlan | Promise<StepPlan>;

/** A node with more to say than its function. */
export interface NodeObject<Vars> {
  /** The nodes it may go on to. Narrows what `run` may return, and gives the graph its edges. Default: any node. */
  to?: readonly string[];
  run: NodeHandler<Vars>;
  /** For people, in dashboards. Default: the node's name. */
  title?: string;
  /** Longest time that `run` may take, in milliseconds. Default: 30 s. */
  timeoutMs?: number;
}

export type NodeForm<Vars> = NodeHandler<Vars> | NodeObject<Vars>;

/** A node as drivers use it. */
export interface NodeDefinition {
  readonly run: NodeHandler<Anything>;
  readonly to?: readonly string[];
  readonly title?: string;
  readonly timeoutMs?: number;
}

/**
 * A node that lives in another file: `export const decide = node(ApprovalVars, ({ vars }) => goto("publish"))`. It is
 * checked in full where a workflow takes it.
 *
 * @param vars The schema of the workflow's vars, or `type<Vars>()`; only its type is used.
 * @returns `form`, as it is.
 */
export function node<Vars, const Form extends NodeForm<Vars>>(_vars: StandardSchemaV1<Anything, Vars>, form: Form): Form {
  return form;
}

/** A schema without checks, for where a type is enough: `vars: type<MyVars>()`. */
export function type<T>(): StandardSchemaV1<T, T> {
  return unchecked as StandardSchemaV1<T, T>;
}

const unchecked: StandardSchemaV1 = {
  "~standard": { version: 1, vendor: "abstractruntime", validate: (value) => ({ value }) },
};

/** Exists in types only. */
declare const typed: unique symbol;
