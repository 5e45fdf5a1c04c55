/**
 * Whether JSON fits a JSON Schema. Schemas come from users, models and servers: their patterns run on a backtracking engine, and
 * `uniqueItems` compares everything with everything, so a check that takes too long is cut off.
 */
import { type Context, createContext, Script } from "node:vm";
import type { Schema, Validator } from "@cfworker/json-schema";
import type { JsonSchema } from "../kernel/answer-schema.ts";
import type { Json } from "../kernel/json.ts";

/** By the clock on the wall, so that it must be enough on a busy machine, too. */
const checkMs = 1_000;
/** What may take longer than in proportion to the value: patterns, comparing everything with everything, and schemas within themselves. */
const costly = ["pattern", "patternProperties", "format", "uniqueItems", "$ref", "$dynamicRef", "$recursiveRef"];

/** What only says that something in it is wrong, which is told of by itself. */
const outer = [
  "properties",
  "additionalProperties",
  "patternProperties",
  "items",
  "prefixItems",
  "allOf",
  "anyOf",
  "oneOf",
  "$ref",
];

/** A schema as large as this, times a value as large, is checked at once: all of the one may be compared with all of the other. */
const fewComparisons = 100_000;

/** What is wrong with `value`, in a line, or undefined when it fits. A schema that cannot be checked within a second is such a problem too. */
export async function schemaProblem(schema: JsonSchema, value: Json): Promise<string | undefined> {
  // Imported for the first check: a process that only runs should not wait for it to load.
  const { Validator } = await import("@cfworker/json-schema");
  try {
    const check = (): string | undefined => problemOf(Validator, schema as Schema, value);
    return isCostly(schema) || sizeOf(schema) * sizeOf(value) > fewComparisons ? within(checkMs, check) : check();
  } catch (error) {
    // The error of a script that was cut off is of its context's realm, and so no instance of Error here.
    return `it cannot be checked against its schema: ${String((error as { message?: unknown } | null)?.message ?? error)}`;
  }
}

/** A property that is called as one of these keywords counts as well: that costs a little, and no answer. */
function isCostly(schema: unknown): boolean {
  if (typeof schema !== "object" || schema === null) return false;
  return costly.some((keyword) => Object.hasOwn(schema, keyword)) || Object.values(schema).some(isCostly);
}

/** How many values it is made of. */
function sizeOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 1;
  return Object.values(value).reduce((sum: number, part) => sum + sizeOf(part), 1);
}

function problemOf(Checker: typeof Validator, schema: Schema, value: Json): string | undefined {
  const { valid, errors } = new Checker(schema, "2020-12", false).validate(value);
  if (valid) return undefined;
  const inner = errors.filter(({ keyword }) => !outer.includes(keyword));
  const lines = (inner.length > 0 ? inner : errors).map(({ keyword, instanceLocation: place, error }) => {
    const said = keyword === "false" ? "Not expected here" : error.replace(/\.$/, "");
    return place === "#" ? said : `${place}: ${said}`;
  });
  return [...new Set(lines)].slice(0, 4).join("; ");
}

/** Made once: a context costs a millisecond. */
let sandbox: { place: { check?: () => unknown }; context: Context; script: Script } | undefined;

/** Runs `check` and throws when it takes longer: only a script of `node:vm` can be interrupted inside a regular expression. */
function within<T>(timeoutMs: number, check: () => T): T {
  if (!sandbox) {
    const place = {};
    sandbox = { place, context: createContext(place), script: new Script("check()") };
  }
  const { place, context, script } = sandbox;
  place.check = check;
  try {
    return script.runInContext(context, { timeout: timeoutMs }) as T;
  } finally {
    delete place.check;
  }
}
