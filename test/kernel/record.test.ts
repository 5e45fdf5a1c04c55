// The chain: what a record's two texts say, and that no byte of either can change unseen.
import { expect, test } from "vitest";
import { decodeRecord, encodeRecord, formatVersion, type StoredRecord, sha256, verifyRecord } from "../../src/kernel/record.ts";

const runId = "r-1";
const salt = "0123456789abcdefghijkl";

function chain(length: number): StoredRecord[] {
  const stored: StoredRecord[] = [];
  for (let seq = 0; seq < length; seq++) {
    const prev = stored.at(-1)?.hash ?? null;
    const place = { runId, seq, prev, at: 1_000 + seq, step: seq + 1, node: "n", actorId: "ada" };
    stored.push(
      encodeRecord({ kind: "step", data: { nextNode: "m", patch: [{ op: "add", path: "/a", value: seq }] } }, place, salt).stored,
    );
  }
  return stored;
}

const verifyAll = (records: readonly StoredRecord[]): (string | undefined)[] => {
  let prev: string | null = null;
  return records.map((record, seq) => {
    const problem = verifyRecord(runId, seq, prev, record);
    prev = record.hash;
    return problem;
  });
};

test("a record is a header and a body, each encoded once, and reads back as it was", () => {
  const [first, second] = chain(2);
  expect(verifyAll([first!, second!])).toEqual([undefined, undefined]);
  expect(first!.hash).toBe(sha256(first!.header));
  expect(JSON.parse(first!.header).body).toBe(sha256(first!.body!));
  expect(first!.body!.startsWith(`{"salt":"${salt}",`)).toBe(true);
  expect(first!.header).not.toContain("/a");
  expect(decodeRecord(runId, second!)).toMatchObject({
    v: formatVersion,
    runId,
    seq: 1,
    prev: first!.hash,
    at: 1_001,
    kind: "step",
    step: 2,
    node: "n",
    actorId: "ada",
    hash: second!.hash,
    data: { nextNode: "m", patch: [{ op: "add", path: "/a", value: 1 }] },
  });
});

test("a record without data still has its salt", () => {
  const place = { runId, seq: 0, prev: null, at: 1, step: 1, node: "n" };
  const { stored, record } = encodeRecord({ kind: "run_cancelled", data: {} }, place, salt);
  expect(stored.body).toBe(`{"salt":"${salt}"}`);
  expect(decodeRecord(runId, stored).data).toEqual(record.data);
});

test("no byte of header, body or hash can change unseen", () => {
  const [record] = chain(1) as [StoredRecord];
  for (const part of ["header", "body", "hash"] as const) {
    const text = record[part] as string;
    for (let i = 0; i < text.length; i++) {
      const changed = text.slice(0, i) + String.fromCharCode(text.charCodeAt(i) ^ 1) + text.slice(i + 1);
      expect(verifyRecord(runId, 0, null, { ...record, [part]: changed }), `${part} at ${i}`).toBeDefined();
    }
    expect(verifyRecord(runId, 0, null, { ...record, [part]: `${text} ` })).toBeDefined();
    expect(verifyRecord(runId, 0, null, { ...record, [part]: text.slice(0, -1) })).toBeDefined();
  }
});

test("no record can be left out, moved, repeated, or come from another run", () => {
  const records = chain(4);
  const [a, b, c, d] = records as [StoredRecord, StoredRecord, StoredRecord, StoredRecord];
  for (const wrong of [
    [a, c, d],
    [a, c, b, d],
    [a, b, b, c],
    [b, c],
    [a, a],
  ]) {
    expect(verifyAll(wrong).some((problem) => problem !== undefined)).toBe(true);
  }
  // Renumbered and hashed anew, it still does not follow.
  const forged = { ...JSON.parse(c.header), seq: 1 };
  const header = JSON.stringify(forged);
  expect(verifyAll([a, { seq: 1, header, hash: sha256(header), body: c.body }])[1]).toMatch(/does not follow/);
  expect(verifyRecord("r-2", 0, null, a)).toMatch(/belongs to run r-1/);
});

test("a withheld body is no fault of the chain, and cannot be folded", () => {
  const records = chain(3).map((record, i) => (i === 1 ? { ...record, body: null } : record));
  expect(verifyAll(records)).toEqual([undefined, undefined, undefined]);
  expect(() => decodeRecord(runId, records[1]!)).toThrow(/RECORD_CORRUPT: .*withheld/);
});

test("what cannot be read is corrupt, what is newer says so", () => {
  const [record] = chain(1) as [StoredRecord];
  const broken: [Partial<StoredRecord>, RegExp][] = [
    [{ header: "" }, /RECORD_CORRUPT: .*header is not JSON/],
    [{ header: "[]" }, /header is not an object/],
    [{ header: "null" }, /header is not an object/],
    [{ header: "{}" }, /no format version/],
    [{ body: '"text"' }, /body is not an object/],
    [{ body: record.body!.slice(0, -1) }, /body is not JSON/],
    [{ header: record.header.replace('"seq":0', '"seq":1') }, /says it is record 1/],
    [{ header: record.header.replace("r-1", "r-2") }, /of run r-2/],
    [
      { header: record.header.replace('"v":1', '"v":99') },
      /FORMAT_NEWER: record 0 of run r-1 has format 99; this version reads up to 1/,
    ],
  ];
  for (const [change, message] of broken) expect(() => decodeRecord(runId, { ...record, ...change })).toThrow(message);
});
