// Holds which part of src may import which, how its files are named, and what the kernel may not touch.
import { globSync, readFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { posix } from "node:path";
import { expect, test } from "vitest";

interface SourceFile {
  /** Relative to src, with forward slashes. */
  path: string;
  text: string;
}

interface Layer {
  /** Folders of src whose files it may import, besides its own. */
  folders?: string[];
  /** It may import the entry points that users import, `testing` apart. */
  entryPoints?: boolean;
  /** Files that it may load by `import()` only. */
  onDemand?: string[];
  /** The npm packages it may import. Default: those package.json declares. */
  packages?: string[];
}

const layers: Record<string, Layer> = {
  kernel: { packages: ["mutative", "@standard-schema/spec"] },
  stores: { folders: ["kernel"], packages: ["pg"] },
  runtime: { folders: ["kernel", "artifacts"], onDemand: ["stores/sqlite/index.ts"] },
  provenance: { folders: ["kernel"] },
  artifacts: { folders: ["kernel", "stores"] },
  python: { folders: ["kernel", "artifacts"], packages: ["lossless-json"] },
  integrations: { entryPoints: true },
  worker: { folders: ["integrations"], entryPoints: true },
  server: { entryPoints: true },
  client: { entryPoints: true },
  cli: { entryPoints: true },
  testing: { folders: ["kernel"], entryPoints: true },
  "index.ts": { folders: ["kernel", "runtime", "stores", "provenance", "artifacts", "python"] },
};

const manifest = JSON.parse(readFileSync("package.json", "utf8"));
const declared = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies });
const entryPoints = Object.values<Record<string, string> | string>(manifest.exports)
  .flatMap((target) => (typeof target === "string" ? [] : [target["abstractruntime-source"] ?? ""]))
  .map((path) => posix.relative("src", path))
  .filter((path) => !path.startsWith("testing/"));

const kernelForbids: [pattern: RegExp, instead: string][] = [
  [/\bconsole\./, "report to the host"],
  [/\bprocess\.exit/, "throw, and let the host decide"],
  [/\bprocess\.env\b/, "take an option"],
];
/** L8: the kernel takes time and randomness from clock.ts. */
const onlyClock =
  /\bDate\.now\b|\bnew Date\(\)|\bperformance\.now\b|\bMath\.random\b|\brandom(?:UUID|Bytes|Int)\b|\bgetRandomValues\b/;

function violations(files: SourceFile[]): string[] {
  return files.flatMap((file) => [...wrongNames(file), ...wrongImports(file), ...wrongGlobals(file), ...boundImports(file)]);
}

function wrongNames({ path }: SourceFile): string[] {
  return path.split("/").flatMap((part) => {
    const name = part.replace(/\.ts$/, "");
    if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) return [`${path}: "${part}" is not kebab-case`];
    if (/^(utils?|helpers?|types?|common|misc|shared)$/.test(name)) return [`${path}: name it after the one thing it holds`];
    return [];
  });
}

function wrongImports({ path, text }: SourceFile): string[] {
  const own = path.split("/")[0] ?? path;
  const layer = layers[own];
  if (!layer) return [`${path}: "${own}" has no line among the layers of this test`];
  const folders = [own, ...(layer.folders ?? [])];

  return importsOf(text).flatMap(({ specifier, onDemand }) => {
    const refuse = (why: string) => [`${path} imports "${specifier}": ${why}`];
    if (isBuiltin(specifier)) return specifier.startsWith("node:") ? [] : refuse("write node: in front");
    if (!specifier.startsWith(".")) {
      const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
      return (layer.packages ?? declared).includes(name) ? [] : refuse(`${own} may not import this package`);
    }
    const target = posix.join(posix.dirname(path), specifier);
    if (!target.endsWith(".ts")) return refuse("end it in .ts");
    if (folders.includes(target.split("/")[0] ?? "")) return [];
    if (layer.entryPoints && entryPoints.includes(target)) return [];
    if (onDemand && layer.onDemand?.includes(target)) return [];
    return refuse(`${own} may not import ${target}`);
  });
}

function wrongGlobals({ path, text }: SourceFile): string[] {
  if (!path.startsWith("kernel/")) return [];
  const code = withoutComments(text);
  const found = kernelForbids.flatMap(([pattern, instead]) => {
    const hit = pattern.exec(code);
    return hit ? [`${path} uses ${hit[0]}: ${instead}`] : [];
  });
  const clock = path === "kernel/clock.ts" ? null : onlyClock.exec(code);
  return clock ? [...found, `${path} uses ${clock[0]}: take it from clock.ts`] : found;
}

/** A bundler asks for an optional package even of whoever never gets there, unless it is awaited in a `try`. */
function boundImports({ path, text }: SourceFile): string[] {
  const code = withoutComments(text);
  return [...code.matchAll(/(?<!typeof )(\bawait )?\bimport\("([^"]+)"\)/g)].flatMap(
    ({ 1: awaited, 2: specifier = "", index }) => {
      const isOptional = Object.keys(manifest.peerDependencies).some((name) => `${specifier}/`.startsWith(`${name}/`));
      const isTried = awaited !== undefined && code.lastIndexOf("try {", index) > code.lastIndexOf("} catch", index);
      return isOptional && !isTried ? [`${path} imports "${specifier}", which may be missing: await it in a try`] : [];
    },
  );
}

function importsOf(text: string): { specifier: string; onDemand: boolean }[] {
  const code = withoutComments(text);
  const statements = /^[ \t]*(?:import|export)\b(?:[^"'`;]*?\bfrom)?\s*["']([^"']+)["']/gm;
  const calls = /\bimport\s*\(\s*["'`]([^"'`]+)["'`]/g;
  return [
    ...[...code.matchAll(statements)].map((match) => ({ specifier: match[1] ?? "", onDemand: false })),
    ...[...code.matchAll(calls)].map((match) => ({ specifier: match[1] ?? "", onDemand: true })),
  ];
}

/** Strings are matched first, so that "https://..." is not taken for a comment. */
function withoutComments(text: string): string {
  const stringOrComment = /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g;
  return text.replace(stringOrComment, (_, string: string | undefined) => string ?? "");
}

test("src keeps its import arrows, its names, and the kernel free of the process it runs in", () => {
  const paths = globSync("**/*.ts", { cwd: "src" }).map((path) => path.replaceAll("\\", "/"));
  expect(paths).not.toEqual([]);
  expect(violations(paths.map((path) => ({ path, text: readFileSync(`src/${path}`, "utf8") })))).toEqual([]);
});

test("a planted violation is found", () => {
  const found = (path: string, text: string) => violations([{ path, text }]);

  expect(found("kernel/fold.ts", 'import { open } from "../stores/sqlite/index.ts";')).toHaveLength(1);
  expect(found("kernel/fold.ts", 'import type {\n  Runtime,\n} from "../runtime/runtime.ts";')).toHaveLength(1);
  expect(found("kernel/fold.ts", 'type R = import("../runtime/runtime.ts").Runtime;')).toHaveLength(1);
  expect(found("kernel/fold.ts", 'import { z } from "zod";')).toHaveLength(1);
  expect(found("kernel/fold.ts", 'import { readFileSync } from "fs";')).toHaveLength(1);
  expect(found("kernel/fold.ts", 'import "./run.js";')).toHaveLength(1);
  expect(found("kernel/fold.ts", "console.log(process.env.HOME, Date.now());")).toHaveLength(3);
  expect(found("kernel/fold.ts", 'const url = "https://example.org"; process.exit(1);')).toHaveLength(1);
  expect(found("stores/sqlite/index.ts", 'export * from "../../runtime/runtime.ts";')).toHaveLength(1);
  expect(found("runtime/runtime.ts", 'import { sqliteStore } from "../stores/sqlite/index.ts";')).toHaveLength(1);
  expect(found("cli/ls.ts", 'import { fold } from "../kernel/fold.ts";')).toHaveLength(1);
  expect(found("cli/ls.ts", 'import { storeContract } from "../testing/index.ts";')).toHaveLength(1);
  expect(found("index.ts", 'export { storeContract } from "./testing/index.ts";')).toHaveLength(1);
  expect(found("worker/server.ts", 'try { open(); } catch {}\nconst load = () => import("hono");')).toHaveLength(1);
  expect(found("kernel/utils.ts", "")).toHaveLength(1);
  expect(found("kernel/RunState.ts", "")).toHaveLength(1);
  expect(found("plugins/index.ts", "")).toHaveLength(1);
});

test("what is allowed passes", () => {
  const allowed: SourceFile[] = [
    {
      path: "kernel/fold.ts",
      text: 'import { create } from "mutative";\n// console.log is for hosts\nimport { run } from "./run.ts";',
    },
    { path: "kernel/clock.ts", text: 'import { randomUUID } from "node:crypto";\nDate.now();' },
    { path: "stores/sqlite/index.ts", text: 'import { DatabaseSync } from "node:sqlite";\nimport "../../kernel/store.ts";' },
    { path: "runtime/runtime.ts", text: 'const { sqliteStore } = await import("../stores/sqlite/index.ts");' },
    { path: "stores/postgres/index.ts", text: 'let sdk: typeof import("pg");\ntry { sdk = await import("pg"); } catch {}' },
    { path: "cli/ls.ts", text: 'import { Command } from "commander";\nimport { sqliteStore } from "../stores/sqlite/index.ts";' },
    {
      path: "testing/index.ts",
      text: '/** import { x } from "../cli/ls.ts" */\nimport { get } from "../index.ts";\nArray.from("abc");',
    },
  ];
  expect(violations(allowed)).toEqual([]);
});
