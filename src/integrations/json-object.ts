/** JSON that came from elsewhere, looked at before it is used. */
import type { JsonObject } from "../index.ts";

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
