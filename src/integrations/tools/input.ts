/** What tools take: the schemas that people write them with, as one interface, and the arguments that models give. */
import { type Json, type JsonObject, type JsonSchema, parseJson, schemaProblem, toJson } from "../../index.ts";
import type { StandardJSONSchemaV1, StandardSchemaV1 } from "@standard-schema/spec";
import { refuse } from "../options.ts";
import type { ToolCall } from "../tool-call.ts";

/** The AI SDK's schema, as far as it is looked at. */
interface AiSchema {
  readonly jsonSchema: unknown;
  readonly validate?: unknown;
}

export interface Input {
  /** The value for the tool, or what is wrong with it. */
  read(value: Json): Promise<{ value: unknown } | { problem: string }>;
  /** JSON Schema, for models. */
  describe(): Promise<JsonObject>;
}

/** @throws INVALID_OPTION for what is no schema. */
export function inputOf(schema: unknown, tool: string): Input {
  if (schema === undefined) return plain({ type: "object" });
  const isFunction = typeof schema === "function";
  if ((typeof schema !== "object" && !isFunction) || schema === null) refuse("input", `the schema of tool "${tool}" is none`);
  if ("~standard" in schema) return standard(schema as StandardSchemaV1, tool);
  if (isFunction) return inputOf((schema as () => unknown)(), tool);
  return "jsonSchema" in schema ? ofAiSdk(schema as AiSchema, tool) : plain(schema as JsonSchema);
}

function standard(schema: StandardSchemaV1, tool: string): Input {
  return {
    async read(value) {
      const result = await schema["~standard"].validate(value);
      return result.issues ? { problem: result.issues.map(issueText).join("; ") } : { value: result.value };
    },
    async describe() {
      const { jsonSchema: converter } = schema["~standard"] as Partial<StandardJSONSchemaV1.Props>;
      if (converter) return asObject(converter.input({ target: "draft-2020-12" }));
      try {
        // Schemas of older libraries say nothing of themselves; the AI SDK knows some of them, where it is installed.
        const { asSchema } = await import("ai");
        return asObject(await asSchema(schema as never).jsonSchema);
      } catch {
        refuse("input", `the schema of tool "${tool}" cannot be said in JSON Schema: give it as JSON Schema`);
      }
    },
  };
}

function ofAiSdk({ jsonSchema, validate }: AiSchema, tool: string): Input {
  const describe = async (): Promise<JsonObject> => asObject(await jsonSchema);
  if (typeof validate !== "function") return { describe, read: async (value) => plain(await describe()).read(value) };
  return {
    describe,
    async read(value) {
      const result: { success: boolean; value?: unknown; error?: unknown } = await validate(value);
      return result.success
        ? { value: result.value }
        : { problem: result.error instanceof Error ? result.error.message : `not what tool "${tool}" takes` };
    },
  };
}

function plain(schema: JsonSchema): Input {
  return {
    async read(value) {
      const problem = await schemaProblem(schema, value);
      return problem === undefined ? { value } : { problem };
    },
    describe: async () => asObject(schema),
  };
}

function asObject(schema: unknown): JsonObject {
  return toJson(schema, "parameters") as JsonObject;
}

function issueText({ message, path = [] }: StandardSchemaV1.Issue): string {
  const at = path.map((segment) => String(typeof segment === "object" ? segment.key : segment)).join(".");
  return at === "" ? message : `${at}: ${message}`;
}

/** Levels of nesting in arguments that come as a text: they are recorded, and shown, within something else. */
const deepest = 100;

/**
 * The arguments of a call as JSON that can be recorded, or what is wrong with them: models give texts, broken ones too, and nothing where
 * there are none. They are never a text in the end, so that reading them twice gives the same.
 */
export function argumentsOf({ arguments: given }: ToolCall): { value: Json } | { problem: string } {
  if (given === null || given === "") return { value: {} };
  if (typeof given !== "string") return { value: given };
  try {
    const value = toJson(parseJson(given), "arguments", deepest);
    return typeof value === "string" ? { problem: "they are a text" } : { value };
  } catch (error) {
    return { problem: `they are no JSON (${error instanceof Error ? error.message : "unreadable"})` };
  }
}
