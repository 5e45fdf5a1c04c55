/** Makes a workflow of a definition, and refuses what cannot work: plain JavaScript and generated definitions come here too. */
import { type EffectDefinition, isDefinedEffect, isStandardSchema } from "./effect.ts";
import { AbstractRuntimeError, checkOptions, invalidOption } from "./errors.ts";
import { nearest } from "./nearest.ts";
import type { Anything } from "./typing.ts";
import type { MigrationStep, Workflow, NodeObject, NodeDefinition } from "./workflow.ts";

const workflowKeys = ["id", "version", "vars", "entry", "nodes", "effects", "onCancel", "migrations", "index", "title"];

export function readWorkflow(definition: Record<string, unknown>): Workflow {
  if (typeof definition !== "object" || definition === null) {
    throw invalidOption("definition", "defineWorkflow() needs { id, entry, nodes }");
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
