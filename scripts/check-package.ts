// Packs the built package, looks at what is in it, installs it in an empty project, and uses it there as a user would:
// every entry point imported, the types compiled, the command run. `npm run build` comes first.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, posix, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const problems: string[] = [];
const place = mkdtempSync(join(tmpdir(), "abstractruntime-package-"));

try {
  if (!existsSync(join(root, "dist"))) throw new Error('There is no dist/ to pack: run "npm run build" first.');
  const tarball = pack();
  if (problems.length === 0) useIt(tarball);
} catch (error) {
  problems.push(error instanceof Error ? error.message : String(error));
} finally {
  rmSync(place, { recursive: true, force: true });
}
for (const problem of problems) console.error(problem);
console.log(problems.length === 0 ? "The package is right." : `The package has ${problems.length} problem(s).`);
process.exitCode = problems.length === 0 ? 0 : 1;

function pack(): string {
  const [packed] = JSON.parse(run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", place], root));
  const paths: string[] = packed.files.map((file: { path: string }) => file.path).sort();
  const has = (path: string) => paths.includes(path.replace(/^\.\//, ""));
  const byFolder = Object.entries(Object.groupBy(paths, (path) => (path.includes("/") ? `${path.split("/")[0]}/` : path)));
  for (const [folder, inside] of byFolder)
    console.log(`  ${folder.padEnd(14)} ${inside?.length === 1 ? "" : `${inside?.length} files`}`);
  console.log(
    `  ${packed.entryCount} files, ${Math.ceil(packed.size / 1024)} KiB packed, ${Math.ceil(packed.unpackedSize / 1024)} KiB unpacked`,
  );

  const targets = Object.values<string | Record<string, string>>(manifest.exports).flatMap((target) =>
    typeof target === "string" ? [target] : Object.values(target),
  );
  const needed = ["README.md", "LICENSE", "CHANGELOG.md", ...targets, ...Object.values<string>(manifest.bin)];
  for (const path of needed) if (!has(path)) problems.push(`${path} is missing from the package.`);
  for (const path of paths) {
    if (!/^(dist|src|docs)\/|^(package\.json|README\.md|LICENSE|CHANGELOG\.md)$/.test(path))
      problems.push(`${path} does not belong.`);
    if (/\.test\.|\.tsbuildinfo$/.test(path)) problems.push(`${path} is not for users.`);
    if (!path.endsWith(".map")) continue;
    for (const source of JSON.parse(readFileSync(join(root, path), "utf8")).sources) {
      const target = posix.join(posix.dirname(path), source);
      if (!has(target)) problems.push(`${path} points to ${target}, which is not in the package.`);
    }
  }
  return join(place, packed.filename);
}

function useIt(tarball: string): void {
  const project = join(place, "project");
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  run("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", tarball], project);

  const specifiers = Object.keys(manifest.exports)
    .filter((key) => key !== "./package.json")
    .map((key) => posix.join(manifest.name, key));
  const lines = specifiers.map((specifier, i) => `import * as m${i} from "${specifier}";`);
  const names = specifiers.map((_, i) => `m${i}`).join(", ");
  const program = `${lines.join("\n")}\nfor (const m of [${names}]) if (Object.keys(m).length === 0) throw new Error("an entry point exports nothing");\n`;
  // Whoever emits declarations has to be able to name what is inferred.
  const exported = `import { askUser, complete, defineWorkflow } from "${manifest.name}";
export const plan = askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "end" });
export const workflow = defineWorkflow({ id: "w", entry: "end", nodes: { end: () => complete() } });
`;
  writeFileSync(join(project, "use.ts"), program + exported);

  // Every entry point can be imported without the optional packages.
  run(process.execPath, ["use.ts"], project);
  // Whoever imports these has the packages that their options are types of.
  for (const peer of ["@aws-sdk/client-s3", "@opentelemetry/api"]) {
    mkdirSync(join(project, "node_modules", posix.dirname(peer)));
    symlinkSync(join(root, "node_modules", peer), join(project, "node_modules", peer), "junction");
  }
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const typeRoots = join(root, "node_modules/@types");
  const options = "--strict --module nodenext --target es2024 --lib es2024,esnext.disposable --types node".split(" ");
  const emitted = ["--declaration", "--emitDeclarationOnly", "--outDir", "declarations"];
  run(process.execPath, [tsc, ...options, ...emitted, "--typeRoots", typeRoots, "use.ts"], project);

  const help = run("npx", ["--no", manifest.name, "--", "--help"], project);
  if (help.trim() === "") problems.push(`${manifest.name} --help prints nothing.`);
}

function run(command: string, args: string[], cwd: string): string {
  try {
    return execFileSync(command, args, {
      cwd,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      shell: process.platform === "win32",
    });
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`"${[command, ...args].join(" ")}" failed:\n${stdout}${stderr}`, { cause: error });
  }
}
