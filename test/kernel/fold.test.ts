// The fold: what each record makes of a state, and what it refuses.
import { expect, test } from "vitest";
import { fold } from "../../src/kernel/fold.ts";
import { restore } from "../../src/kernel/restore.ts";
import { encodeRecord, type LedgerRecord, type RecordDraft, type StoredRecord } from "../../src/kernel/record.ts";
import { encodeState, payloadOf, openWaits, type RunState, statusOf, wakeAtOf } from "../../src/kernel/run.ts";

const salt = "0123456789abcdefghijkl";
const started: RecordDraft = {
  kind: "run_started",
  data: { workflowId: "w", version: "1", entry: "a", vars: { list: [{ id: 1 }, { id: 2 }] } },
};

/** A run, record by record. */
class Ledger {
  readonly records: LedgerRecord[] = [];
  readonly stored: StoredRecord[] = [];
  state: RunState | undefined;

  add(...drafts: RecordDraft[]): this {
    for (const draft of drafts) {
      const seq = this.records.length;
      const place = {
        runId: "r",
        seq,
        prev: this.stored.at(-1)?.hash ?? null,
        at: 1_000 + seq,
        step: this.state?.step ?? 1,
        node: this.state?.node ?? "a",
      };
      const { record, stored } = encodeRecord(draft, place, salt);
      this.state = fold(this.state, record);
      this.records.push(record);
      this.stored.push(stored);
    }
    return this;
  }

  /** What refuses this draft as the next record. */
  refuses(draft: RecordDraft): string {
    const place = { runId: "r", seq: this.records.length, prev: null, at: 1, step: 1, node: "a" };
    const state = this.state && structuredClone(this.state);
    try {
      fold(state, encodeRecord(draft, place, salt).record);
      return "nothing";
    } catch (error) {
      return (error as Error).message;
    }
  }
}

const run = () => new Ledger().add(started);
const intent = (more: object = {}) => ({ type: "t", payload: { n: 1 }, nextNode: "b", ...more });
const wait = (more: object = {}) => ({ reason: "event" as const, waitKey: "k", since: 1, ...more });
const error = { name: "Error", message: "no" };

test("a step patches the vars and goes on", () => {
  const ledger = run();
  const before = ledger.state!.vars;
  ledger.add({ kind: "step", data: { patch: [{ op: "add", path: "/list/2", value: { id: 3 } }], nextNode: "b" } });
  expect(ledger.state).toMatchObject({ node: "b", step: 2, seq: 1, head: ledger.stored[1]!.hash, updatedAt: 1_001 });
  expect(ledger.state!.vars.list).toHaveLength(3);
  expect(before.list).toHaveLength(2);
});

test("an effect opens, retries and closes; its key is the hash of the record that opened it", () => {
  const ledger = run().add({ kind: "effect_started", effectId: "1", attempt: 1, data: { intent: intent({ resultKey: "x.y" }) } });
  const key = ledger.stored[1]!.hash;
  expect(ledger.state!.open.get("1")!).toMatchObject({ phase: "executing", attempt: 1, key, node: "a", step: 1 });
  expect([statusOf(ledger.state!), wakeAtOf(ledger.state!)]).toEqual(["running", 1_001]);
  ledger.add({ kind: "effect_failed", effectId: "1", attempt: 1, data: { error, retryAt: 5_000 } });
  expect([statusOf(ledger.state!), wakeAtOf(ledger.state!)]).toEqual(["waiting", 5_000]);
  ledger.add({ kind: "effect_started", effectId: "1", attempt: 2, data: {} });
  expect(ledger.state!.open.get("1")!).toMatchObject({ phase: "executing", attempt: 2, key, lastError: error });
  ledger.add({ kind: "effect_completed", effectId: "1", attempt: 2, data: { result: [1] } });
  expect(ledger.state).toMatchObject({ node: "b", open: new Map(), vars: { x: { y: [1] } } });
});

test("a failure that a node takes is shown to it, and forgotten behind it", () => {
  const ledger = run().add(
    { kind: "effect_started", effectId: "1", attempt: 1, data: { intent: intent() } },
    { kind: "effect_failed", effectId: "1", attempt: 1, data: { error, nextNode: "caught" } },
  );
  expect(ledger.state).toMatchObject({ node: "caught", step: 2, error });
  ledger.add({ kind: "step", data: { nextNode: "b" } });
  expect(ledger.state!.error).toBeUndefined();
});

test("members join: all by number, any by the first", () => {
  const open = (type: string) =>
    run().add(
      {
        kind: "effect_started",
        effectId: "1",
        attempt: 1,
        data: { intent: { ...intent({ resultKey: "got" }), type, payload: {}, members: 2 } },
      },
      {
        kind: "parked",
        effectId: "1.0",
        data: { intent: { type: "wait_event", payload: {}, parent: "1", index: 0 }, wait: wait({ until: 9_000 }) },
      },
      {
        kind: "parked",
        effectId: "1.1",
        data: { intent: { type: "wait_event", payload: {}, parent: "1", index: 1 }, wait: wait({ waitKey: "l", until: 8_000 }) },
      },
    );
  const answer = (effectId: string, payload: any): RecordDraft => ({
    kind: "delivered",
    effectId,
    data: { messageId: effectId, messageKind: "answer", key: "k", payload, outcome: "result" },
  });
  const all = open("all");
  expect([statusOf(all.state!), wakeAtOf(all.state!)]).toEqual(["waiting", 8_000]);
  expect(openWaits(all.state!).map(({ waitKey }) => waitKey)).toEqual(["k", "l"]);
  all.add(answer("1.1", "second"));
  expect(statusOf(all.state!)).toBe("waiting");
  all.add(answer("1.0", "first"));
  // What has joined has something to do at once: a run that stops here must not be taken for one that waits.
  expect([statusOf(all.state!), wakeAtOf(all.state!)]).toEqual(["running", 1_005]);
  all.add({ kind: "effect_completed", effectId: "1", data: { collect: true } });
  expect(all.state).toMatchObject({ node: "b", open: new Map(), vars: { got: ["first", "second"] } });

  const any = open("any").add(answer("1.1", "second"));
  expect(statusOf(any.state!)).toBe("running");
  any.add({ kind: "effect_completed", effectId: "1", data: { collect: true } });
  expect(any.state).toMatchObject({ open: new Map(), vars: { got: { index: 1, result: "second" } }, answered: ["k"] });
});

test("references point into the vars of the request, whatever comes later, and over a checkpoint", () => {
  const ledger = run().add({
    kind: "effect_started",
    effectId: "1",
    attempt: 1,
    data: {
      intent: intent({
        payload: { part: null, rest: [null] },
        refs: [
          { at: "/part", from: "/list/0" },
          { at: "/rest/0", from: "/list", range: [0, 2] },
        ],
      }),
    },
  });
  const payload = { part: { id: 1 }, rest: [{ id: 1 }, { id: 2 }] };
  expect(payloadOf(ledger.state!.open.get("1")!)).toEqual(payload);
  const text = encodeState(ledger.state!);
  const again = restore("r", { checkpoint: { seq: 1, ordinal: 1, text }, tail: [] }).state;
  expect(payloadOf(again.open.get("1")!)).toEqual(payload);
});

test("a run ends once", () => {
  for (const [end, state] of [
    [
      { kind: "run_completed", data: { output: { ok: 1 } } },
      { status: "completed", output: { ok: 1 } },
    ],
    [
      { kind: "run_failed", data: { error } },
      { status: "failed", error },
    ],
    [{ kind: "run_cancelled", data: {} }, { status: "cancelled" }],
  ] as const) {
    const ledger = run().add(
      { kind: "effect_started", effectId: "1", attempt: 1, data: { intent: intent() } },
      end as RecordDraft,
    );
    expect(ledger.state).toMatchObject({ ...state, open: {} });
    expect(wakeAtOf(ledger.state!)).toBeNull();
    expect(ledger.refuses({ kind: "step", data: { nextNode: "b" } })).toMatch(/RECORD_CORRUPT: .*the run had ended/);
  }
});

test("records that cannot follow are corrupt", () => {
  expect(new Ledger().refuses({ kind: "step", data: { nextNode: "b" } })).toMatch(
    /RECORD_CORRUPT: .*does not follow record none/,
  );
  const ledger = run();
  expect(ledger.refuses(started)).toMatch(/starts with its first record, once/);
  expect(ledger.refuses({ kind: "effect_completed", effectId: "1", data: { result: 1 } })).toMatch(/effect 1 is not open/);
  expect(ledger.refuses({ kind: "effect_completed", effectId: "__proto__", data: { result: 1 } })).toMatch(/is not open/);
  expect(ledger.refuses({ kind: "step", data: { patch: [{ op: "remove", path: "/none" }], nextNode: "b" } })).toMatch(
    /RECORD_CORRUPT/,
  );
  expect(
    ledger.refuses({ kind: "step", data: { patch: [{ op: "add", path: "/__proto__/x", value: 1 }], nextNode: "b" } }),
  ).toMatch(/RECORD_CORRUPT/);
  expect(ledger.refuses({ kind: "new" as "step", data: { nextNode: "b" } })).toMatch(/its kind "new" is not known/);
  ledger.add({ kind: "effect_started", effectId: "1", attempt: 1, data: { intent: intent() } });
  expect(ledger.refuses({ kind: "effect_started", effectId: "1", attempt: 1, data: { intent: intent() } })).toMatch(
    /open already/,
  );
});

test("restore takes a tail as it was written, or not at all", () => {
  const { stored, state } = run().add(
    { kind: "step", data: { patch: [{ op: "add", path: "/n", value: 500 }], nextNode: "b" } },
    { kind: "step", data: { nextNode: "c" } },
  );
  expect(restore("r", { tail: stored }).state).toEqual(state);
  const changed = (i: number, change: Partial<StoredRecord>) =>
    stored.map((record, at) => (at === i ? { ...record, ...change } : record));
  for (const tail of [
    changed(1, { body: stored[1]!.body!.replace("500", "900") }),
    changed(1, { header: stored[1]!.header.replace('"at":1001', '"at":1000') }),
    changed(2, { hash: "0".repeat(64) }),
    [stored[0]!, stored[2]!],
    stored.slice(1),
    [],
  ]) {
    expect(() => restore("r", { tail })).toThrow(/RECORD_CORRUPT/);
  }
  const text = encodeState(restore("r", { tail: stored.slice(0, 2) }).state);
  expect(restore("r", { checkpoint: { seq: 1, ordinal: 1, text }, tail: stored.slice(2) }).state).toEqual(state);
  expect(() => restore("r", { checkpoint: { seq: 1, ordinal: 1, text: text.replace("500", "900") }, tail: [] })).toThrow(
    RangeError,
  );
});
