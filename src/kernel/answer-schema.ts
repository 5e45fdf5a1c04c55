/** What an answer must look like, as data: recorded with the wait, so that any process can check one. */
import type { StandardJSONSchemaV1, StandardTypedV1 } from "@standard-schema/spec";
import { invalidOption } from "./errors.ts";
import { type Json, toJson } from "./json.ts";
import type { Anything } from "./typing.ts";

/** A Standard Schema, or JSON Schema as plain data. */
export type AnswerSchema = StandardTypedV1 | JsonSchema;
export interface JsonSchema {
  readonly [keyword: string]: unknown;
}

export type SchemaResult<Schema> = Schema extends StandardTypedV1<Anything, infer Output> ? Output : Anything;
/** By schema: converting costs more than a step, and schemas do not change. */
const derived = new WeakMap<object, Json | undefined>();

/**
 * A schema as JSON Schema data, or undefined where none can be derived: its library does not offer it
 * (https://standardschema.dev/json-schema), or the schema cannot be said in JSON Schema.
 *
 * @throws NOT_JSON for a JSON Schema that is not plain data.
 */
export function jsonSchemaOf(schema: AnswerSchema | undefined): Json | undefined {
  if (schema === undefined) return undefined;
  // Some libraries' schemas are functions.
  if ((typeof schema !== "object" && typeof schema !== "function") || schema === null) {
    throw invalidOption("schema", "schema is a Standard Schema or a JSON Schema");
  }
  if (!("~standard" in schema)) return toJson(schema, "schema");
  if (!derived.has(schema)) derived.set(schema, derive(schema as Partial<StandardJSONSchemaV1>));
  return derived.get(schema);
}

function derive(schema: Partial<StandardJSONSchemaV1>): Json | undefined {
  const converter = schema["~standard"]?.jsonSchema;
  try {
    return converter && toJson(converter.output({ target: "draft-2020-12" }), "schema");
  } catch {
    // The specification lets converters throw for what they cannot express (a transform, say): the answer is then not checked.
    return undefined;
  }
}

/** For spreading into a payload. */
export function jsonSchemaMember(schema: AnswerSchema | undefined): { schema?: Json } {
  const json = jsonSchemaOf(schema);
  return json === undefined ? {} : { schema: json };
}
