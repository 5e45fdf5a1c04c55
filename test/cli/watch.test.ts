// `watch`: a run as it happens, on a screen and for programs.
import { Writable } from "node:stream";
import { afterAll, expect, test } from "vitest";
import { complete, createRuntime, defineWorkflow, type WatchItem } from "../../src/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { gate, reading, talking, text } from "../runtime/watching.ts";
import { CommandLine } from "./command-line.ts";

const line = new CommandLine();
const { say, act } = talking();
const talker = defineWorkflow({
  id: "talker",
  effects: [say],
  entry: "ask",
  nodes: { ask: () => say("hello", { nextNode: "end" }), end: () => complete() },
});
const runtime = await createRuntime({ store: await sqliteStore(line.storePath), workflows: [talker] });
afterAll(async () => {
  await runtime.stop();
  line.remove();
});

/** Output that calls `saw` with all of it so far. */
function output(saw: (out: string) => void): { stdout: Writable; said: () => string } {
  let said = "";
  const stdout = new Writable({
    write(chunk, _, done) {
      said += String(chunk);
      saw(said);
      done();
    },
  });
  return { stdout, said: () => said };
}

test("shows records, and text as it comes, which the terminal does not obey", async () => {
  const { opened, open } = gate();
  act.now = async ({ stream, attempt }) => {
    if (attempt === 1) {
      stream(text("first try\n"));
      throw new Error("no");
    }
    stream({ type: "reasoning", text: "Let me see" });
    stream(text("Hello \ud83d"));
    await opened;
    stream(text("\ude00\u001b[31m\nyou"));
    stream({ type: "tool-call", callId: "c1", text: "{}" });
    return null;
  };
  const { runId } = await runtime.start(talker, { runId: "shown" });
  const { stdout, said } = output((out) => out.includes("Hello ") && open());
  const { code, err } = await line.with({ stdout }, "watch", runId);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const shown = said().replaceAll(/^ *(\d+) {2}\S+ \S+ {2}/gm, "$1  ");
  expect(shown.split("\n")).toEqual([
    "0  ask  run_started  vars {}",
    '1  ask  effect_started  say 1/1  "hello"',
    "say 1/1 text:",
    "first try",
    expect.stringMatching(/^2 {2}ask {2}effect_uncertain {2}say 1\/1 {2}no/),
    "3  ask  effect_started  say 1/2",
    "say 1/2 streams anew: what was shown of it counts no more",
    "say 1/2 reasoning:",
    "Let me see",
    "say 1/2 text:",
    "Hello 😀\\u001b[31m",
    "you",
    "say 1/2 tool-call c1:",
    "{}",
    "4  ask  effect_completed  say 1/2  null",
    "5  end  run_completed  {}",
    "",
  ]);
});

test("Ctrl-C says how to go on, and that gives the rest, as JSON too", async () => {
  const { opened, open } = gate();
  act.now = async ({ stream }) => {
    stream(text("before "));
    await opened;
    stream(text("and after"));
    return null;
  };
  const { runId } = await runtime.start(talker, { runId: "left" });
  let interrupt = (): void => undefined;
  const onInterrupt = (listener: () => void) => {
    interrupt = listener;
    return () => undefined;
  };
  const { stdout, said } = output((out) => out.includes('"before ') && interrupt());
  const { code, err } = await line.with({ stdout, onInterrupt }, "watch", "left", "--json");
  expect(code).toBe(130);
  const after = /^Stopped\. Go on with `abstractruntime watch left --after '([^']+)' --store .+`\.$/m.exec(err)?.[1];
  open();
  await runtime.result(runId);
  const { out, code: ended } = await line.ar("watch", "left", "--json", "--after", String(after));
  expect(ended).toBe(0);
  const itemsOf = (lines: string): WatchItem[] =>
    lines
      .trim()
      .split("\n")
      .map((item) => JSON.parse(item) as WatchItem);
  expect(reading([...itemsOf(said()), ...itemsOf(out)]).texts).toEqual({ "1 #1": "before and after" });
});

test("a run that is not there, and what is no cursor", async () => {
  expect(await line.ar("watch", "nobody")).toMatchObject({ code: 1, err: expect.stringMatching(/^RUN_NOT_FOUND/) });
  await runtime.run(talker, { runId: "done" });
  expect(await line.ar("watch", "done", "--after", "x")).toMatchObject({
    err: expect.stringMatching(/^INVALID_OPTION: .*no cursor/),
  });
});
