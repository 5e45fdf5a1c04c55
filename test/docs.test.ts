// The documentation is tested like code:
// - every ```ts block in README.md and docs/ is a whole module and is type-checked, all of them by one tsc;
// - a ```ts run block is also run as a program, in an empty directory, and must end well;
// - a ```text output block shows exactly what the ```ts run block before it prints;
// - every relative link leads somewhere; every error code has its page, and every page its code.
import { spawnSync } from "node:child_process";
import { existsSync, globSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { catalogue } from "../src/kernel/catalogue.ts";

interface Block {
  page: string;
  line: number;
  language: string;
  text: string;
}

const pages = ["README.md", ...globSync("docs/**/*.md")].map((path) => path.replaceAll("\\", "/")).sort();
const blocks = pages.flatMap((page) => blocksOf(page, readFileSync(page, "utf8")));
const modules = blocks.filter(({ language }) => language === "ts" || language === "ts run");
const programs = blocks.flatMap((block, i) => (block.language === "ts run" ? [{ ...block, output: outputBehind(i) }] : []));

// Inside the repository, so that "abstractruntime" means its source; not in node_modules, where Node runs no TypeScript.
let place: string;
beforeAll(() => {
  mkdirSync(".abstractruntime", { recursive: true });
  place = resolve(mkdtempSync(".abstractruntime/docs-"));
  for (const block of modules) writeFileSync(join(place, fileOf(block)), block.text);
});
afterAll(() => rmSync(place, { recursive: true, force: true }));

function blocksOf(page: string, text: string): Block[] {
  return [...text.matchAll(/^```([^\n]*)\n([\s\S]*?)^```$/gm)].map(({ 1: language = "", 2: code = "", index }) => ({
    page,
    line: text.slice(0, index).split("\n").length,
    language: language.trim(),
    text: code,
  }));
}

function outputBehind(i: number): string | undefined {
  const next = blocks[i + 1];
  return next?.language === "text output" && next.page === blocks[i]?.page ? next.text : undefined;
}

/** Names the page and the line, so that an error leads there. */
function fileOf({ page, line }: Block): string {
  return `${page.replace(/\.md$/, "").replaceAll("/", "-")}-line-${line}.ts`;
}

test("a block says what it is", () => {
  const languages = ["ts", "ts run", "text", "text output", "sh", "json", "mermaid"];
  expect(blocks.filter(({ language }) => !languages.includes(language))).toEqual([]);
  expect(programs.length).toBeGreaterThan(5);
});

test("every ts block is type-checked", () => {
  const tsconfig = { extends: "../../tsconfig.json", include: ["*.ts"] };
  writeFileSync(join(place, "tsconfig.json"), JSON.stringify(tsconfig));
  const { stdout, status } = spawnSync(process.execPath, [resolve("node_modules/typescript/bin/tsc"), "--project", place], {
    encoding: "utf8",
  });
  expect({ stdout, status }).toEqual({ stdout: "", status: 0 });
});

describe("programs", () => {
  test.each(programs.map((program) => [`${program.page}, line ${program.line}`, program] as const))("%s", (_, program) => {
    const cwd = mkdtempSync(join(tmpdir(), "docs-test-"));
    try {
      const { stdout, stderr, status } = spawnSync(process.execPath, [...process.execArgv, join(place, fileOf(program))], {
        cwd,
        encoding: "utf8",
        env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined },
        timeout: 150_000,
      });
      expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
      if (program.output !== undefined) expect(stdout.trimEnd()).toBe(program.output.trimEnd());
    } finally {
      rmSync(cwd, { recursive: true, force: true });
    }
  });
});

test("every relative link leads somewhere", () => {
  const dead = pages.flatMap((page) => {
    const prose = readFileSync(page, "utf8").replaceAll(/^```[\s\S]*?^```$/gm, "");
    const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(({ 1: link = "" }) => link);
    return links.filter((link) => !leads(page, link)).map((link) => `${page}: ${link}`);
  });
  expect(dead).toEqual([]);
});

function leads(page: string, link: string): boolean {
  if (/^[a-z]+:/.test(link)) return true;
  const [path = "", anchor] = link.split("#");
  const target = path === "" ? page : join(dirname(page), path);
  if (!existsSync(target)) return false;
  return anchor === undefined || (target.endsWith(".md") && anchorsOf(readFileSync(target, "utf8")).includes(anchor));
}

/** As GitHub makes them from headings. */
function anchorsOf(text: string): string[] {
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(({ 1: heading = "" }) => heading);
  return headings.map((heading) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

test("every error code has its page, in one form, and every page its code", () => {
  const codes = Object.keys(catalogue).sort();
  const files = readdirSync("docs/errors").filter((file) => file !== "README.md");
  expect(files.sort()).toEqual(codes.map((code) => `${code}.md`));
  const index = readFileSync("docs/errors/README.md", "utf8");
  for (const code of codes) {
    const text = readFileSync(`docs/errors/${code}.md`, "utf8");
    const form = /^# ([A-Z_]+)\n\n(?:(?!#).*\n)+## Causes\n\n(?:(?!#).*\n)+## Fix\n\n(?:(?!#).*\n)+$/.exec(text);
    expect({ code, heading: form?.[1] }).toEqual({ code, heading: code });
    expect({ code, listed: index.includes(`[${code}](${code}.md)`) }).toEqual({ code, listed: true });
  }
});
