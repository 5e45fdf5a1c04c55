// Workflows that leave it to the process who carries an effect out, such as a model call: files export the handlers as `effects`.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { CommandLine, fixture } from "./command-line.ts";

const file = fixture("handlers.ts");
const without = fixture("no-handlers.ts");
const line = new CommandLine();
afterAll(() => line.remove());

test("a file's export `effects` has the handlers; without it the run is blocked, and is told what to do", async () => {
  const blocked = await line.ar("run", without, "--id", "riddle-1", "--vars", '{"about":"snow"}');
  expect(blocked.code).toBe(1);
  expect(blocked.err).toContain(
    'requests effect "guess", which this process has no handler for. The workflow only says that it uses it',
  );
  expect((await line.ar("why", "riddle-1")).out).toMatch(
    /Next: put .+ or its handler into the file's export `effects`, then .+ run .+ --id riddle-1/,
  );

  const done = await line.ar("run", file, "--id", "riddle-1");
  expect(done.out).toContain('Run riddle-1 completed.\n"It is snow."');
  expect((await line.ar("replay", "riddle-1", file, "--live", "guess")).out).toContain("nothing is different");
  const dead = await line.ar("replay", "riddle-1", without, "--live", "guess");
  expect(dead.err).toMatch(/^EFFECT_UNKNOWN: .+"guess".+\nThe workflow only says/);
});

test("why --file says how many attempts the handler may have, and check finds it", async () => {
  await line.ar("run", file, "--workflow", "riddle", "--id", "riddle-2", "--vars", '{"about":"nothing"}');
  expect((await line.ar("why", "riddle-2", "--file", file)).out).toContain('attempt 2 of 7 of effect "guess"');
  expect((await line.ar("why", "riddle-2", "--file", without)).out).toContain('attempt 2 of effect "guess"');
  expect((await line.ar("check", file)).code).toBe(0);
  const { code, out } = await line.ar("check", without);
  expect(code).toBe(1);
  expect(out).toMatch(/Run riddle-2 of workflow "riddle"[\s\S]+EFFECT_UNKNOWN/);
});

test("an export `effects` that is no list of handlers is refused", async () => {
  const wrong = join(line.directory, "wrong.ts");
  const begin = `export { riddle } from ${JSON.stringify(file)};\n`;
  writeFileSync(wrong, `${begin}export const effects = {};`);
  expect((await line.ar("run", wrong)).err).toMatch(
    /^FILE_INVALID: .+its export effects is not a list of effects\.\nExport a list/,
  );

  const twice = join(line.directory, "twice.ts");
  writeFileSync(
    twice,
    `import { defineEffect } from "abstractruntime";\n${begin}
export const effects = [1, 2].map(() => defineEffect("guess", { run: async () => "" }));`,
  );
  expect((await line.ar("run", twice)).err).toMatch(/^INVALID_OPTION: effects holds two handlers of "guess"/);

  const declared = join(line.directory, "declared.ts");
  writeFileSync(
    declared,
    `import { declareEffect } from "abstractruntime";\n${begin}export const effects = [declareEffect("guess")];`,
  );
  expect((await line.ar("run", declared)).err).toMatch(
    /^INVALID_OPTION: effects holds what says that workflows use "guess", and not/,
  );
});

test("a file's export `telemetry` is told of what is driven", async () => {
  const begun: unknown[] = [];
  const traced = { headers: () => ({}), within: (action: () => unknown) => action(), end: () => undefined };
  const begin = (what: { kind: string }): object => {
    begun.push(what.kind);
    return traced;
  };
  Object.assign(globalThis, { toldHere: { here: () => ({}), begin, committed: () => undefined, watch: () => () => undefined } });
  const told = join(line.directory, "told.ts");
  writeFileSync(told, `export * from ${JSON.stringify(file)};\nexport const telemetry = globalThis.toldHere;`);
  await line.ar("run", told, "--workflow", "riddle", "--id", "told-1", "--vars", '{"about":"snow"}');
  expect(begun).toEqual(["drive", "step", "attempt", "step"]);
});

test("an approval is asked for, answered wrongly, and answered", async () => {
  await line.ar("run", file, "--workflow", "payment", "--id", "payment-1");
  expect((await line.ar("why", "payment-1")).out).toContain("Choices    allow, deny, or what fits the schema");
  expect((await line.ar("respond", "payment-1", "yes")).err).toMatch(
    /^ANSWER_INVALID: .+ was refused: "yes" is not one of: allow, deny\.\nThe run still waits/,
  );
  expect((await line.ar("respond", "payment-1", '{"decision":"allow","why":"so"}')).err).toContain("#/why: Not expected here.");
  expect((await line.ar("respond", "payment-1", "{}")).err).toContain(
    'property "text"; Instance does not have required property "decision".',
  );
  expect((await line.ar("respond", "payment-1", "allow", "--file", file)).out).toContain('Run payment-1 completed.\n"paid"');
});

test("whoever waits for a tool is told its name", async () => {
  const vars = '{"calls":[{"name":"mail","callId":"1","arguments":{}}]}';
  const { out } = await line.ar("run", file, "--workflow", "payment", "--id", "payment-2", "--vars", vars);
  expect(out).toMatch(/Waits for +the result of a job of tool "mail", "/);
});

test("what an effect was given out of the vars is shown as where it stands, and not as null", async () => {
  await line.ar("run", file, "--workflow", "riddle", "--id", "riddle-3", "--vars", '{"about":"snow","clues":["white","cold"]}');
  expect((await line.ar("ledger", "riddle-3")).out).toMatch(
    /effect_started +guess 1\/1 +\{"about":"snow","clues":"<vars\/clues>"\}/,
  );
});

test("a job that is looked after by its handler goes on by itself", async () => {
  const { out } = await line.ar("run", file, "--workflow", "polling", "--id", "polling-1");
  expect(out).toMatch(/its handler is called again at .+\nNext: abstractruntime run .+handlers\.ts --id polling-1 --wait/);
});
