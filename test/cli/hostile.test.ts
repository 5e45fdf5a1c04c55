// Nothing that came from data is obeyed by the terminal, by a shell that gets a printed command, or by Mermaid.
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "vitest";
import { printable } from "../../src/cli/terminal.ts";
import { mermaidText } from "../../src/cli/commands/graph.ts";
import { shellWord } from "../../src/cli/problem.ts";
import { CommandLine, fixture, key } from "./command-line.ts";
import { evil } from "./fixtures/hostile.ts";

const file = fixture("hostile.ts");
const line = new CommandLine();
const runId = `run ${evil}`;
const vars = JSON.stringify({ [evil]: evil, "\u001b]8;;http://evil\u0007": ["\u0085", "\ud800"] });
/** Everything a terminal might obey, line breaks of our own apart. */
const obeyed = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/u;

beforeAll(async () => {
  const { code } = await line.ar("run", file, "--id", runId, "--vars", vars);
  expect(code).toBe(0);
  await line.ar("run", file, "--id", "plain");
  await line.ar("run", file, "--id", "doomed");
});
afterAll(() => line.remove());

test.each<[args: string[]]>([
  [["ls"]],
  [["show", runId]],
  [["why", runId]],
  [["ledger", runId]],
  [["verify", runId]],
  [["verify"]],
  [["graph", file]],
  [["graph", file, "--run", runId]],
  [["run", file, "--id", runId]],
  [["respond", runId, evil]],
  [["respond", runId, `not ${evil}`]],
  [["respond", runId, "no", "--key", `not ${evil}`]],
  [["respond", "plain", "no", "--file", file]],
  [["why", "plain"]],
  [["tree", runId]],
  [["tree", evil]],
  [["signal", runId, evil, evil]],
  [["signal", runId, `late ${evil}`, JSON.stringify(evil), "--id", evil]],
  [["signal", evil, evil]],
  [["emit", evil, evil, "--workflow", evil]],
  [["pause", runId, "--reason", evil]],
  [["unpause", runId]],
  [["retry", runId]],
  [["retry", "plain"]],
  [["cancel", "doomed", "--reason", evil]],
  [["cancel", "doomed", runId, "plain", "--reason", evil]],
  [["cancel", "--workflow", evil, "--queue", evil]],
  [["cancel", "--status", evil]],
  [["show", "doomed"]],
  [["why", "doomed"]],
  [["ledger", "doomed"]],
  [["check", file]],
  [["check", `${evil}.ts`]],
  [["schedules", evil, evil]],
  [["schedules", "pause", evil]],
  [["schedules", "trigger", evil, "--file", file, "--key", evil]],
  [["ls", "--queue", evil]],
  [["show", `none ${evil}`]],
  [["why", evil.slice(0, 4)]],
  [["run", `${evil}.ts`]],
  [["run", file, "--workflow", evil]],
  [["run", file, "--vars", evil]],
  [["ls", "--status", evil]],
  [["ls", "--store", `sqlite:${evil}`]],
  [[`ls${evil}`]],
  [["ls", `--${evil}`]],
])("nothing to obey is printed (%#)", async (args) => {
  for (const more of [[], ["--json"], ["--debug"]]) {
    const { out, err } = await line.ar(...args, ...more);
    expect(out + err).not.toBe("");
    for (const text of [...out.split("\n"), ...err.split("\n")]) expect(text).not.toMatch(obeyed);
    expect(out).not.toMatch(/^Run fine completed/m);
  }
});

test("escapes lose nothing: JSON output gives back exactly what was stored", async () => {
  await line.ar("run", file, "--id", `exact ${evil}`, "--vars", vars);
  const { json } = await line.ar("show", `exact ${evil}`, "--json");
  expect(json.runId).toBe(`exact ${evil}`);
  expect(json.vars).toMatchObject({ [evil]: evil, "\u001b]8;;http://evil\u0007": ["\u0085", "\ud800"] });
  expect(json.waits[0].prompt).toBe(evil);
});

test("a question asked in the terminal is escaped too", async () => {
  await line.ar("run", file, "--id", "asked");
  const { out } = await line.with({ keys: [key.down + key.enter] }, "respond", "asked");
  expect(out).toContain("\\u001b]0;owned\\u0007");
  // The prompt's own sequences are there; none of the data's.
  for (const sequence of ["\u001b[2J", "\u001b]0;", "\u009b", "\u202e", "\u0007", "\u2028"]) expect(out).not.toContain(sequence);
});

test("what is escaped", () => {
  expect(printable("a\u001b[31mb\u009b\u007f\t\n\u202e\u2066\u200b\u00ad\ufeff\ud800\u{e0041}")).toBe(
    "a\\u001b[31mb\\u009b\\u007f\\u0009\\u000a\\u202e\\u2066\\u200b\\u00ad\\ufeff\\ud800\\udb40\\udc41",
  );
  const family = "👩‍👩‍👧 سلام नमस्ते 日本 é";
  expect(printable(family)).toBe(family);
});

test("Mermaid reads a label as text, whatever stands in it", async () => {
  expect(mermaidText("ask_user")).toBe("ask_user");
  expect(mermaidText("Ask the user, please")).toBe("Ask the user#44; please");
  expect(mermaidText('"]; click n0 "javascript:alert(1)" <b> `md` %%{init}%% #quot; 1. x\n- y')).not.toMatch(
    /["'<>`%{}():[\]\\\n]|#(?!\d+;)/,
  );
  const { out } = await line.ar("graph", file);
  expect(out.split("\n").slice(0, -1)).toEqual([
    "flowchart TD",
    expect.stringMatching(/^ {2}n0\(\["[\p{L}\p{N} _#;-]+"\]\)$/u),
    expect.stringMatching(/^ {2}n1\["[\p{L}\p{N} _#;-]+"\]$/u),
    "  n0 --> n1",
  ]);
});

test.skipIf(process.platform === "win32").each(["plain", "it's", '$(reboot) `x` "; rm -rf ~ & \\', "a b", "--x", "*", "!!"])(
  "a shell reads %j as one word",
  (word) => {
    expect(execFileSync("sh", ["-c", `printf %s ${shellWord(word)}`], { encoding: "utf8" })).toBe(word);
  },
);

test("a run id that looks like an option is named so that it works", async () => {
  await line.ar("run", file, "--id", "--json-like");
  const { out } = await line.ar("why", "--", "--json-like");
  expect(out).toMatch(/Next: abstractruntime respond --store \S+ -- --json-like ANSWER\n/);
});
