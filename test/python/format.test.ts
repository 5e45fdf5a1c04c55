// The format of the Python package: numbers, texts, hashes, keys. Nothing here depends on the runtime.
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { ActorFingerprint, isError } from "abstractruntime";
import {
  canonicalJson,
  canonicalJsonAscii,
  computeArtifactId,
  computeIdempotencyKey,
  computeRecordHash,
  fileText,
  ledgerText,
  parsePythonJson,
  readLedger,
  verifyLedgerChain,
} from "abstractruntime/python";
import { LosslessNumber } from "lossless-json";
import { toNative, toPython } from "../../src/python/native.ts";
import { expected, fixture, textOf, vectors } from "./fixtures.ts";
import { tried } from "../properties.ts";

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
const files = (name: string) => readdirSync(fixture(name)).map((file) => [name, file] as const);
const directories = Object.keys(expected);

test("both canonical texts of the vectors, and their hashes", () => {
  for (const vector of vectors.canonical) {
    const value = parsePythonJson(vector.file_text_indent2);
    expect(fileText(value)).toBe(vector.file_text_indent2);
    expect(canonicalJson(value)).toBe(vector.canonical_text_raw_unicode);
    expect(sha256(canonicalJson(value))).toBe(vector.sha256_utf8);
    expect(canonicalJsonAscii(value)).toBe(vector.canonical_text_ascii_escaped);
    expect(sha256(canonicalJsonAscii(value))).toBe(vector.sha256_ascii_escaped);
  }
  expect(vectors.canonical.length).toBeGreaterThan(0);
});

test("idempotency keys, ids of artifacts and fingerprints of the vectors", () => {
  for (const { run_id, node_id, effect_type, payload_text, hashed_text, key } of vectors.idempotency) {
    const payload = parsePythonJson(payload_text);
    expect(canonicalJsonAscii({ run_id, node_id, effect_type, effect_payload: payload })).toBe(hashed_text);
    expect(computeIdempotencyKey(run_id, node_id, { type: effect_type, payload })).toBe(key);
  }
  for (const { hex, id } of vectors.artifact_id) expect(computeArtifactId(Buffer.from(hex, "hex"))).toBe(id);
  for (const { result } of vectors.fingerprint) {
    const { kind, display_name: displayName, metadata } = result;
    expect(ActorFingerprint.fromMetadata(kind, { displayName, metadata }).toDict()).toEqual(result);
  }
  const { kind, display_name: displayName, actor_id } = expected["a-ask-user-waiting"].actor;
  const metadata = { org: "acme", level: new LosslessNumber("1.0") };
  expect(ActorFingerprint.fromMetadata(kind, { displayName, metadata }).actorId).toBe(actor_id);
  // A plain number is a whole one when it can be: another id than for 1.0.
  expect(ActorFingerprint.fromMetadata(kind, { displayName, metadata: { level: 1, org: "acme" } }).actorId).not.toBe(actor_id);
});

test("an actor of a misspelt name is refused, since it would be another one", () => {
  const wrong = (kind: unknown, options?: object) => () => ActorFingerprint.fromMetadata(kind as string, options as never);
  expect(wrong("human", { display_name: "Zoé" })).toThrow('Did you mean "displayName"?');
  expect(wrong(undefined)).toThrow("kind is a text");
});

test("the keys in the ledgers of the fixtures are those of their effects", () => {
  let compared = 0;
  for (const [name, file] of directories.flatMap(files)) {
    if (!file.endsWith(".jsonl") || name.startsWith("f2")) continue;
    for (const record of readLedger(textOf(name, file)).records as any[]) {
      if (record.idempotency_key === null) continue;
      expect(computeIdempotencyKey(record.run_id, record.node_id, record.effect)).toBe(record.idempotency_key);
      compared += 1;
    }
  }
  expect(compared).toBeGreaterThan(30);
});

test("every ledger gets the verdict that the Python package gives", () => {
  const reports: [string, string, unknown][] = [];
  for (const [name, entry] of Object.entries<any>(expected)) {
    if (entry.upstream_verification_report) reports.push([name, entry.ledger_file, entry.upstream_verification_report]);
    for (const { file, upstream_verification_report: report } of [entry.ledger ?? {}, ...Object.values<any>(entry.ledgers ?? {})])
      if (report) reports.push([name, file, report]);
  }
  expect(reports).toHaveLength(7);
  for (const [name, file, report] of reports) expect([name, readLedger(textOf(name, file)).report]).toEqual([name, report]);
});

test("a verdict names each way in which a chain can be wrong", () => {
  const chain = (count: number): any[] => {
    const records: any[] = [];
    for (let i = 0; i < count; i++) {
      const prev_hash = records.at(-1)?.record_hash ?? null;
      const record = { run_id: "r", node_id: `n${i}`, prev_hash, record_hash: null, signature: null };
      records.push({ ...record, record_hash: computeRecordHash(record, prev_hash) });
    }
    return records;
  };
  expect(verifyLedgerChain([])).toEqual({
    ok: true,
    count: 0,
    errors: [],
    first_bad_index: null,
    head_hash: null,
    computed_head_hash: null,
  });
  const noHash = chain(4);
  noHash[2].record_hash = "";
  const head = noHash[3].record_hash;
  expect(verifyLedgerChain(noHash)).toEqual({
    ok: false,
    count: 4,
    errors: [{ index: 2, type: "missing_record_hash" }],
    first_bad_index: 2,
    head_hash: head,
    computed_head_hash: noHash[1].record_hash,
  });
  // Index 0 counts as none yet: the later one is reported.
  const two = chain(4);
  two[0].node_id = "x";
  two[3].node_id = "y";
  expect(verifyLedgerChain(two)).toMatchObject({ first_bad_index: 3, errors: [{ index: 0 }, { index: 3 }] });
  const first = chain(2);
  first[0].node_id = "x";
  expect(verifyLedgerChain(first).first_bad_index).toBe(0);
  // One record, two errors.
  const moved = chain(3);
  moved[1].prev_hash = null;
  expect(verifyLedgerChain(moved).errors.map(({ type }) => type)).toEqual(["prev_hash_mismatch", "record_hash_mismatch"]);
  // Neither a signature nor a cut tail is noticed; a key more is.
  const signed = chain(3);
  signed[1].signature = "s";
  expect(verifyLedgerChain(signed.slice(0, 2)).ok).toBe(true);
  signed[1].more = 1;
  expect(verifyLedgerChain(signed).errors).toMatchObject([{ index: 1, type: "record_hash_mismatch" }]);
  // NaN counts as something.
  const nan = chain(1);
  nan[0].record_hash = Number.NaN;
  expect(verifyLedgerChain(nan)).toMatchObject({ errors: [{ type: "record_hash_mismatch" }], computed_head_hash: Number.NaN });
  // Half of a surrogate pair cannot be hashed, and yet it can be the hash that stands there.
  const half = chain(2);
  half[0].record_hash = "\ud800";
  expect(verifyLedgerChain(half).errors.map(({ index, type }) => [index, type])).toEqual([
    [0, "record_hash_mismatch"],
    [1, "prev_hash_mismatch"],
  ]);
  // A prev_hash that is missing is null.
  const bare = { run_id: "r" };
  expect(verifyLedgerChain([{ ...bare, record_hash: computeRecordHash(bare, null) }]).ok).toBe(true);
});

test("numbers are spelled as Python prints them, whoever wrote them", () => {
  // Each as `python3 -c 'print(json.dumps(json.loads(text)))'` answers.
  const spellings = {
    "1.0": "1.0", "1.50": "1.5", "1E5": "100000.0", "-0": "0", "-0.0": "-0.0", "0.0": "0.0", "0e0": "0.0", "1e16": "1e+16",
    "123456789012345678.0": "1.2345678901234568e+17", "0.0001": "0.0001", "0.00001": "1e-05", "1e400": "Infinity", "-1e400": "-Infinity",
    "5e-324": "5e-324", "1e-400": "0.0", "-1.5e300": "-1.5e+300", "1e22": "1e+22", "9007199254740993": "9007199254740993",
    "9999999999999998.0": "9999999999999998.0", "0.1": "0.1", "-12.25": "-12.25", "1.7976931348623157e308": "1.7976931348623157e+308",
    NaN: "NaN", Infinity: "Infinity", "-Infinity": "-Infinity",
  }; // biome-ignore format: a table
  for (const [given, printed] of Object.entries(spellings))
    expect([given, canonicalJson(parsePythonJson(given))]).toEqual([given, printed]);
  expect(canonicalJson([1, 1.5, -0, 1e21, 2 ** 53, 10n ** 20n, 1e-7])).toBe(
    "[1,1.5,-0.0,1e+21,9007199254740992.0,100000000000000000000,1e-07]",
  );
  expect(() => canonicalJson(parsePythonJson("1".repeat(4_301)))).toThrow(/4301 digits/);
  expect(canonicalJson(parsePythonJson(`-${"1".repeat(4_300)}`))).toHaveLength(4_301);
});

test("bare words are numbers only where a value stands", () => {
  const text = '{"NaN": NaN, "a \\" Infinity": [Infinity, -Infinity, 0e0, 0e00], "b": "NaN"}';
  const value = parsePythonJson(text) as any;
  expect(value.NaN).toBeNaN();
  expect(ledgerText([value])).toBe('{"NaN": NaN, "a \\" Infinity": [Infinity, -Infinity, 0.0, 0.0], "b": "NaN"}\n');
  for (const wrong of [
    "-NaN",
    "1NaN",
    "NaN1",
    "xNaN",
    "--Infinity",
    "1Infinity",
    "Infinity0",
    "nan",
    "[NaN",
    "{NaN:1}",
    "NaNNaN",
  ])
    expect(() => parsePythonJson(wrong), wrong).toThrow(SyntaxError);
});

test("what JSON readers stumble over", () => {
  expect(canonicalJson(parsePythonJson('{"a":1,"b":2,"a":3.0}'))).toBe('{"a":3.0,"b":2}');
  expect(fileText(parsePythonJson('{"__proto__":{"x":1.0},"constructor":[]}'))).toBe(
    '{\n  "__proto__": {\n    "x": 1.0\n  },\n  "constructor": []\n}',
  );
  expect(ledgerText([parsePythonJson('{"C:\\\\":1,"C:\\\\temp":2}')])).toBe('{"C:\\\\": 1, "C:\\\\temp": 2}\n');
  expect(canonicalJsonAscii(parsePythonJson('"\\ud800 \u007f"'))).toBe('"\\ud800 \\u007f"');
  expect(() => canonicalJson(parsePythonJson('{"k":["\\ud800"]}'))).toThrow(/NOT_JSON: \/k\/0 .*surrogate/);
  expect(() => parsePythonJson("[".repeat(100_000) + "]".repeat(100_000))).toThrow("too deeply");
  const deep = JSON.parse(`${"[".repeat(1_500)}${"]".repeat(1_500)}`);
  expect(() => canonicalJson(deep)).toThrow(/^JSON_TOO_DEEP/);
  const cycle: unknown[] = [];
  cycle.push(cycle);
  for (const wrong of [cycle, new Date(), () => 1, { a: Symbol("s") }, new Map()])
    expect(() => ActorFingerprint.fromMetadata("agent", { metadata: { wrong } })).toThrow(/NOT_JSON|JSON_TOO_DEEP/);
  for (const wrong of ["", "\ufeff{}", "{} x", "01", "1.", "[1,]", '"\u0001"', "undefined"])
    expect(() => parsePythonJson(wrong), JSON.stringify(wrong)).toThrow(SyntaxError);
  // Code points, not UTF-16 units; and no own notion of what is an integer key.
  expect(canonicalJson({ "\u{10000}": 1, "\uffff": 2, "\ud7ff": 3, "10": 4, "2": 5 })).toBe(
    '{"10":4,"2":5,"\ud7ff":3,"\uffff":2,"\u{10000}":1}',
  );
  try {
    canonicalJson({ a: undefined, b: { "x/y": Number } });
    expect.unreachable();
  } catch (error) {
    expect(isError(error, "NOT_JSON") && error.fields.path).toBe("/b/x~1y");
  }
});

test("whatever is written is read again, and what goes through a run of ours comes back as it was", () => {
  const number = fc.oneof(
    fc.double().map(canonicalJson),
    fc.bigInt().map(String),
    fc.bigInt().map((whole) => `${whole}.0`),
    fc.constantFrom("-0.0", "1e-07", "5e-324", "NaN", "-Infinity", "9007199254740993"),
  );
  // As Python would have written it.
  const spelled = number.map((lexeme) => parsePythonJson(canonicalJson(parsePythonJson(lexeme))));
  const text = fc.string({ unit: "grapheme" });
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof({ maxDepth: 4 }, text, spelled, fc.boolean(), fc.constant(null), tie("list"), tie("object")),
    list: fc.array(tie("value"), { maxLength: 4 }),
    object: fc.dictionary(text, tie("value"), { maxKeys: 4, noNullPrototype: true }),
  }));
  fc.assert(
    fc.property(value, (given) => {
      const written = fileText(given);
      expect(fileText(parsePythonJson(written))).toBe(written);
      const line = ledgerText([given]);
      expect(ledgerText([parsePythonJson(line)])).toBe(line);
      expect(canonicalJson(parsePythonJson(canonicalJson(given)))).toBe(canonicalJson(given));
      const old = parsePythonJson(written);
      const native = toNative(old, "", () => undefined);
      expect(JSON.parse(JSON.stringify(native))).toEqual(native);
      expect(fileText(toPython(native, old))).toBe(written);
    }),
    tried(250),
  );
});
