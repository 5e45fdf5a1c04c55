/**
 * A workflow is a graph of named nodes. Its definition is checked twice: by the compiler, as far as the types of the nodes reach,
 * and when it is made, since plain JavaScript and generated definitions come here too.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { type AnyEffect, type EffectDefinition, isDefinedEffect, isStandardSchema } from "./effect.ts";
import { AbstractRuntimeError, checkOptions, type ErrorData } from "./errors.ts";
import { nearest } from "./nearest.ts";
import type { BuiltInEffect, StepPlan } from "./plan.ts";
import type { Anything, JsonCheck, Plan, Write } from "./typing.ts";

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

const workflowKeys = ["id", "version", "vars", "entry", "nodes", "effects", "onCancel", "migrations", "index", "title"];

function readWorkflow(definition: Record<string, unknown>): Workflow {
  if (typeof definition !== "object" || definition === null) {
    throw new AbstractRuntimeError("INVALID_OPTION", {
      option: "definition",
      problem: "defineWorkflow() needs { id, entry, nodes }",
    });
  }
  const { id, version = 1, vars, entry, title } = definition;
  const invalid: Invalid = (problem, suggestion) => {
    const workflowId = typeof id === "string" ? id.slice(0, 200) : String(id);
    throw new AbstractRuntimeError("WORKFLOW_INVALID", { workflowId, problem, ...(suggestion ? { suggestion } : {}) });
  };
  checkOptions(definition, workflowKeys, "defineWorkflow()");
  checkName(id, "its id", invalid);
  if (!(Number.isInteger(version) && (version as number) >= 1) && (typeof version !== "string" || version === "")) {
    return invalid("version is a whole number from 1, or text");
  }
  if (vars !== undefined && !isStandardSchema(vars))
    return invalid("vars is a Standard Schema (zod, valibot, arktype...), or type<T>()");
  const nodes = readNodes(definition.nodes, invalid);
  if (typeof entry !== "string" || !nodes.has(entry)) {
    return invalid(
      `its entry "${String(entry)}" is not a node`,
      typeof entry === "string" ? nearest(entry, nodes.keys()) : undefined,
    );
  }
  const effects = readEffects(definition.effects, invalid);
  const { onCancel } = definition;
  if (onCancel !== undefined && !(typeof onCancel === "string" && nodes.has(onCancel))) {
    return invalid(
      `its onCancel "${String(onCancel)}" is not a node`,
      typeof onCancel === "string" ? nearest(onCancel, nodes.keys()) : undefined,
    );
  }
  return Object.freeze({
    id,
    version: version as number | string,
    title: title as string | undefined,
    entry,
    nodes,
    effects,
    varsSchema: vars,
    onCancel,
    index: readIndex(definition.index, invalid),
    migrations: readMigrations(definition.migrations, version, nodes, invalid),
    edges: () => [...nodes].flatMap(([from, { to = [] }]) => to.map((target) => ({ from, to: target }))),
  });
}

type Invalid = (problem: string, suggestion?: string) => never;

function readNodes(given: unknown, invalid: Invalid): Map<string, NodeDefinition> {
  if (typeof given !== "object" || given === null || Array.isArray(given)) return invalid("nodes is an object of functions");
  const nodes = new Map<string, NodeDefinition>();
  for (const [name, form] of Object.entries(given)) {
    checkName(name, `the name of a node, "${name.slice(0, 64)}",`, invalid);
    nodes.set(name, readNode(name, form, invalid));
  }
  if (nodes.size === 0) return invalid("it has no nodes");
  for (const [name, { to = [] }] of nodes) {
    const missing = to.find((target) => !nodes.has(target));
    if (missing !== undefined)
      return invalid(`node "${name}" goes to "${String(missing)}", which is not a node`, nearest(String(missing), nodes.keys()));
  }
  return nodes;
}

function readNode(name: string, form: unknown, invalid: Invalid): NodeDefinition {
  if (isDefinedEffect(form))
    return invalid(`node "${name}" is effect "${form.effectType}" itself; write () => ${form.effectType}(payload, { nextNode })`);
  if (typeof form === "function") return Object.freeze({ run: form as NodeDefinition["run"] });
  if (typeof form !== "object" || form === null) return invalid(`node "${name}" is neither a function nor { run }`);
  checkOptions(form, ["to", "run", "title", "timeoutMs"], `node "${name}"`);
  const { to, run, title, timeoutMs } = form as Partial<NodeObject<Anything>>;
  if (typeof run !== "function") return invalid(`node "${name}" has no run function`);
  if (to !== undefined && (!Array.isArray(to) || to.some((target) => typeof target !== "string")))
    return invalid(`node "${name}": to is a list of node names`);
  if (timeoutMs !== undefined && !(Number.isFinite(timeoutMs) && timeoutMs > 0)) {
    return invalid(`node "${name}": timeoutMs is a number of milliseconds above 0`);
  }
  return Object.freeze({ run, to: to && Object.freeze([...new Set(to)]), title, timeoutMs });
}

function readEffects(given: unknown, invalid: Invalid): Map<string, EffectDefinition> {
  const effects = new Map<string, EffectDefinition>();
  if (given === undefined) return effects;
  if (!Array.isArray(given)) return invalid("effects is a list of effects made by defineEffect");
  for (const [i, effect] of given.entries()) {
    if (!isDefinedEffect(effect)) return invalid(`effects[${i}] was not made by defineEffect`);
    const { type } = effect.definition;
    // The same definition twice is harmless: lists put together from several files overlap.
    if (effects.has(type) && effects.get(type) !== effect.definition) return invalid(`effects has two definitions of "${type}"`);
    effects.set(type, effect.definition);
  }
  for (const { undo } of [...effects.values()]) {
    if (isDefinedEffect(undo) && !effects.has(undo.definition.type)) effects.set(undo.definition.type, undo.definition);
  }
  return effects;
}

/** Every migration leads, alone or by others, to the present version. */
function readMigrations(
  given: unknown,
  version: unknown,
  nodes: ReadonlyMap<string, NodeDefinition>,
  invalid: Invalid,
): Map<string, MigrationStep> {
  const migrations = new Map<string, MigrationStep>();
  if (given === undefined) return migrations;
  if (typeof given !== "object" || given === null || Array.isArray(given))
    return invalid("migrations is an object: the version that is left, and a function from its vars to the new ones");
  for (const [from, migration] of Object.entries(given)) {
    const what = `the migration from version ${from}`;
    const whole = typeof migration === "function" ? { vars: migration } : migration;
    if (typeof whole !== "object" || whole === null) return invalid(`${what} is neither a function nor { vars, nodes, to }`);
    checkOptions(whole, ["vars", "nodes", "to"], what);
    if (whole.vars !== undefined && typeof whole.vars !== "function") return invalid(`${what}: vars is a function`);
    const { nodes: names = {} } = whole;
    const areNames = typeof names === "object" && names !== null && !Array.isArray(names);
    if (!areNames || Object.values(names).some((name) => typeof name !== "string"))
      return invalid(`${what}: nodes is an object of new names, by the old names of nodes`);
    if (whole.to === undefined && !/^\d+$/.test(from)) return invalid(`${what} does not say where to: add { to }`);
    if (from === String(version)) return invalid(`${what} leaves the present version`);
    migrations.set(from, { vars: whole.vars, nodes: { ...whole.nodes }, to: String(whole.to ?? Number(from) + 1) });
  }
  for (const from of migrations.keys()) {
    const seen = new Set<string>();
    let at = from;
    for (let next = migrations.get(at); next && !seen.has(at); next = migrations.get(at)) {
      seen.add(at);
      at = next.to;
    }
    if (at !== String(version))
      return invalid(`the migration from version ${from} ends at version ${at}, not at ${String(version)}`);
  }
  for (const { to, nodes: renamed } of migrations.values()) {
    const missing = to === String(version) ? Object.values(renamed).find((name) => !nodes.has(name)) : undefined;
    if (missing !== undefined)
      return invalid(`a migration renames a node to "${missing}", which is not a node`, nearest(missing, nodes.keys()));
  }
  return migrations;
}

function readIndex(given: unknown, invalid: Invalid): readonly string[] {
  if (given === undefined) return [];
  const isPath = (path: unknown): boolean =>
    typeof path === "string" && path.length <= 200 && path.isWellFormed() && path.split(".").every((key) => key !== "");
  if (Array.isArray(given) && given.length <= mostIndexed && given.every(isPath)) return Object.freeze([...new Set(given)]);
  return invalid(`index is a list of up to ${mostIndexed} dotted paths into the vars`);
}

/** Each is an entry of an index to be kept up with every change. */
const mostIndexed = 16;

function checkName(name: unknown, what: string, invalid: Invalid): asserts name is string {
  if (typeof name !== "string" || name === "") invalid(`${what} is not text, or empty`);
  if ((name as string).length > 200) invalid(`${what} is longer than 200 characters`);
}

// ---- What the compiler checks -------------------------------------------------------------------------------------

/** Exists in types only. */
declare const typed: unique symbol;

type PlanOf<Form> = Form extends (run: never) => infer Returned
  ? Awaited<Returned>
  : Form extends { run: (run: never) => infer Returned }
    ? Awaited<Returned>
    : never;

/** What a plan completes with. One of unknown type makes it unknown. */
type CompletionOf<P> =
  P extends Plan<string, Anything, string, infer Output> ? Output : P extends { completeOutput?: infer Output } ? Output : never;

/**
 * A node's own type when it is right, otherwise that type with a sentence in the place of what is wrong. `nodes` must consist of
 * these alone (not of `Nodes & ...`): then the compiler infers `Nodes` through them, and reports at the very expression.
 */
type NodeCheck<Form, Vars, Name extends string, Effect extends string> = [FormProblem<Form, Name>] extends [never]
  ? [PlanProblem<PlanOf<Form>, Vars, Name, Effect, TargetsOf<Form>>] extends [never]
    ? Form
    : Form extends { run: unknown }
      ? Omit<Form, "run"> & { run: (run: never) => PlanProblem<PlanOf<Form>, Vars, Name, Effect, TargetsOf<Form>> }
      : (run: never) => PlanProblem<PlanOf<Form>, Vars, Name, Effect, TargetsOf<Form>>
  : FormProblem<Form, Name>;

/** A misspelt key, or a `to` that names no node. */
type FormProblem<Form, Name extends string> = Form extends { run: unknown }
  ? [Exclude<keyof Form, keyof NodeObject<unknown>>] extends [never]
    ? Form extends { to: readonly (infer Target extends string)[] }
      ? [Missing<Target, Name>] extends [never]
        ? never
        : Omit<Form, "to"> & { to: readonly (Name | Missing<Target, Name>)[] }
      : never
    : NodeObject<Anything> & { [Key in Exclude<keyof Form, keyof NodeObject<unknown>> & string]: `A node has no '${Key}'.` }
  : never;

type TargetsOf<Form> = Form extends { to: readonly (infer Target)[] } ? Target : string;

/** A sentence for everything wrong with a plan; never when it is right. Distributes over a union of plans. */
type PlanProblem<P, Vars, Name extends string, Effect extends string, Target> =
  P extends Plan<infer Next, infer Writes, infer Used, Anything>
    ? Missing<Next, Name> | Strayed<Next, Name, Target> | Undeclared<Used, Effect> | WriteProblem<Writes, Vars>
    : P extends { nextNode: infer Next extends string }
      ? Missing<Next, Name> | Strayed<Next, Name, Target>
      : never;

type Missing<Next extends string, Name extends string> = string extends Next
  ? never
  : Next extends Name
    ? never
    : `This workflow has no node '${Next}'.`;

type Strayed<Next extends string, Name extends string, Target> = string extends Next
  ? never
  : Next extends Name
    ? Next extends Target
      ? never
      : `Node '${Next}' is not in the 'to' of this node.`
    : never;

type Undeclared<Used extends string, Effect extends string> = string extends Used
  ? never
  : Used extends Effect
    ? never
    : `Effect '${Used}' is not in the 'effects' of this workflow.`;

type WriteProblem<Writes, Vars> = Writes extends Write<infer Key, infer Result> ? KeyProblem<Key, Result, Vars> : never;

type KeyProblem<Key extends string, Result, Vars> = string extends Key
  ? never
  : Key extends string
    ? MemberAt<Vars, Key> extends infer Member
      ? [Result] extends [Member | Unchanging<Member>]
        ? never
        : [Member] extends [NoMember]
          ? `resultKey '${Key}' is not in the vars.`
          : // Not by a name: written out, the message shows the types that do not fit together.
            { error: `The result of this effect does not fit vars.${Key}.`; result: Result; expected: Exclude<Member, NoMember> }
      : never
    : never;

/** A result is copied, so lists that may not be changed fit lists that may: `complete` infers such ones. */
type Unchanging<T> = T extends object ? { readonly [Key in keyof T]: Unchanging<T[Key]> } : T;

declare const noMember: unique symbol;
type NoMember = typeof noMember;

/** What stands at a dotted key. Parents may be optional: objects are made on the way. */
type MemberAt<T, Key> = 0 extends 1 & T
  ? T
  : Key extends `${infer Head}.${infer Rest}`
    ? MemberAt<PropertyAt<NonNullable<T>, Head>, Rest>
    : PropertyAt<T, Key>;

type PropertyAt<T, Key> = T extends readonly unknown[]
  ? NoMember
  : T extends object
    ? Key extends keyof T
      ? T[Key]
      : NoMember
    : NoMember;
