/** What the outside world answers when nobody says otherwise: something that fits the wait's choices or its JSON Schema. */
import { isObject, type Json, type JsonObject } from "../../kernel/json.ts";
import type { WaitState } from "../../kernel/run.ts";
import type { SimulationRandom } from "./random.ts";

/** Whether the wait asks a person what became of an effect (`onUncertain: "ask"`). */
export function asksWhatHappened({ waitKey, details }: WaitState): boolean {
  return waitKey.startsWith("uncertain:") && isObject(details) && details.uncertain === true;
}

/** An answer derived from the wait. */
export function answerTo(wait: WaitState, random: SimulationRandom): Json {
  if (wait.choices && wait.choices.length > 0) return { text: random.pick(wait.choices) };
  if (wait.budget !== undefined && isObject(wait.details)) {
    const { name, needed } = wait.details as { name: string; needed: number };
    return random.chance(0.8) ? { raise: { [name]: needed } } : { stop: true };
  }
  if (wait.schema) return sample(wait.schema, random, wait.schema, 0);
  if (wait.reason === "user") return { text: `answer ${random.int(1, 9)}` };
  return { number: random.int(1, 9) };
}

/** A value that fits the usual keywords of JSON Schema: types, `enum`, `const`, bounds, and the first way through a union. */
export function sample(schema: unknown, random: SimulationRandom, root: JsonObject, depth: number): Json {
  if (!isObject(schema as Json)) return null;
  const given = schema as JsonObject;
  const list = (key: string): Json[] | undefined => (Array.isArray(given[key]) ? (given[key] as Json[]) : undefined);
  const number = (key: string, otherwise: number): number =>
    typeof given[key] === "number" ? (given[key] as number) : otherwise;
  const again = (part: unknown): Json => sample(part, random, root, depth + 1);
  if (depth > 20) return null;
  if (Object.hasOwn(given, "const")) return given.const as Json;
  if (typeof given.$ref === "string") return again(resolve(root, given.$ref));
  const choices = list("enum");
  if (choices && choices.length > 0) return random.pick(choices);
  const ways = list("anyOf") ?? list("oneOf");
  if (ways && ways.length > 0) return again(random.pick(ways));
  const parts = list("allOf");
  if (parts) return again(Object.assign({}, given, { allOf: undefined }, ...parts));
  const types = Array.isArray(given.type) ? (given.type as string[]) : [given.type as string];
  const type = given.type === undefined && isObject(given.properties as Json) ? "object" : random.pick(types);
  switch (type) {
    case "object": {
      const properties = isObject(given.properties as Json) ? (given.properties as JsonObject) : {};
      const required = list("required") ?? [];
      const entries = Object.entries(properties).filter(([key]) => required.includes(key) || random.chance(0.5));
      return Object.fromEntries(entries.map(([key, part]) => [key, again(part)]));
    }
    case "array": {
      const length = random.int(number("minItems", 0), Math.min(number("maxItems", 3), number("minItems", 0) + 3));
      return Array.from({ length }, () => again(given.items));
    }
    case "string":
      return "text".padEnd(number("minLength", 0), "x").slice(0, number("maxLength", 100));
    case "integer":
    case "number": {
      const least = number("minimum", number("exclusiveMinimum", 0) + (given.exclusiveMinimum === undefined ? 0 : 1));
      const most = number("maximum", number("exclusiveMaximum", least + 101) - 1);
      return random.int(Math.ceil(least), Math.floor(Math.min(most, least + 100)));
    }
    case "boolean":
      return random.chance(0.5);
    default:
      return null;
  }
}

function resolve(root: JsonObject, pointer: string): unknown {
  let at: unknown = root;
  for (const key of pointer.replace(/^#\/?/, "").split("/").filter(Boolean)) {
    at = (at as Record<string, unknown> | undefined)?.[key.replaceAll("~1", "/").replaceAll("~0", "~")];
  }
  return at;
}
