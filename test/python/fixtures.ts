/** Directories that the Python package wrote, and what it says of them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parsePythonJson } from "abstractruntime/python";

export const fixtures = join(import.meta.dirname, "../fixtures/python");
export const fixture = (name: string): string => join(fixtures, name);
export const textOf = (...path: string[]): string => readFileSync(join(fixtures, ...path), "utf8");

/** With the spelling of its numbers. Its shape is its own. */
export const vectors = parsePythonJson(textOf("vectors.json")) as any;
/** Its numbers are counts: plain ones will do. */
export const expected = JSON.parse(textOf("expected.json"));
