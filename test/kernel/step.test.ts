// What plans, outcomes, messages and moments mean as records.
import { expect, test } from "vitest";
import { readPolicy } from "../../src/kernel/policy.ts";
import type { OpenEffect, RunState } from "../../src/kernel/run.ts";
import { childId, childKey } from "../../src/kernel/child-id.ts";
import { dueDrafts, outcomeDrafts } from "../../src/kernel/step.ts";
import { messageDrafts } from "../../src/kernel/message-drafts.ts";
import { type PlanContext, planDrafts } from "../../src/kernel/plan-drafts.ts";
import { waitState } from "../../src/kernel/wait.ts";
import type { Mail } from "../../src/kernel/message.ts";

const now = Date.UTC(2026, 0, 1);

function context(more: Partial<PlanContext> = {}): PlanContext {
  const nodes = new Map([
    ["a", 0],
    ["b", 0],
    ["c", 0],
  ]);
  return { runId: "r", workflowId: "w", node: "a", step: 3, now, nodes, places: new Map(), vars: {}, ...more };
}

function state(open: Partial<OpenEffect>[] = [], more: Partial<RunState> = {}): RunState {
  const effects = open.map((effect, i) => ({
    id: String(i + 1),
    type: "t",
    step: 1,
    node: "a",
    key: "k".repeat(64),
    attempt: 1,
    phase: "executing" as const,
    payload: {},
    nextNode: "b",
    ...effect,
  }));
  return {
    runId: "r",
    workflowId: "w",
    version: "1",
    status: "running",
    paused: false,
    node: "a",
    step: 1,
    seq: 1,
    head: "h",
    vars: {},
    open: new Map(effects.map((effect) => [effect.id, effect])),
    createdAt: now,
    updatedAt: now,
    ...more,
  };
}

test("a wait's defaults: its key carries the effect, its moment is absolute, its choices are closed", () => {
  expect(waitState({ reason: "user", prompt: "?" }, "3", "r", "a", now)).toEqual({
    reason: "user",
    waitKey: "user:r:a:3",
    since: now,
    prompt: "?",
    allowFreeText: true,
  });
  expect(waitState({ reason: "user", choices: ["y"], timeoutMs: 50 }, "3.1", "r", "a", now)).toEqual({
    reason: "user",
    waitKey: "user:r:a:3.1",
    since: now,
    until: now + 50,
    choices: ["y"],
    allowFreeText: false,
  });
  expect(waitState({ reason: "user", choices: ["y"], allowFreeText: true }, "1", "r", "a", now)).toMatchObject({
    allowFreeText: true,
  });
  expect(waitState({ reason: "event", waitKey: "mine", details: { n: 1 } }, "1", "r", "a", now)).toEqual({
    reason: "event",
    waitKey: "mine",
    since: now,
    details: { n: 1 },
  });
  expect(waitState({ reason: "job" }, "1", "r", "a", now)).not.toHaveProperty("allowFreeText");
});

test("moments: whole milliseconds, rounded up, and what is none is refused", () => {
  const until = (until: number | string) => waitState({ reason: "until", until }, "1", "r", "a", now).until;
  expect(until("2026-01-31T09:00:00Z")).toBe(Date.UTC(2026, 0, 31, 9));
  expect(until("2026-01-31T09:00:00.5+02:00")).toBe(Date.UTC(2026, 0, 31, 7, 0, 0, 500));
  expect(until("2026-01-31")).toBe(Date.UTC(2026, 0, 31));
  expect(until("2024-02-29")).toBe(Date.UTC(2024, 1, 29));
  expect(until(now + 0.2)).toBe(now + 1);
  expect(until(0)).toBe(0);
  expect(waitState({ reason: "until", timeoutMs: 1.5 }, "1", "r", "a", now).until).toBe(now + 2);
  for (const wrong of [
    "tomorrow",
    "2",
    "",
    "2026",
    "2026-01-31T09:00:00",
    "2026-01-31 09:00:00Z",
    "2026-02-31",
    "2025-02-29T00:00:00Z",
    "2026-13-01",
    "2026-01-31T25:00:00Z",
    "2026-01-31T09:00:00+99:00",
    "+012026-01-31",
    Number.NaN,
    Number.POSITIVE_INFINITY,
    1e300,
  ]) {
    expect(() => until(wrong), String(wrong)).toThrow(/EFFECT_INPUT_INVALID/);
  }
  expect(() => waitState({ reason: "user", timeoutMs: 1e300 }, "1", "r", "a", now)).toThrow(/EFFECT_INPUT_INVALID/);
});

test("a plan becomes records: a step, a completion, a failure, an effect, a wait", () => {
  const patch = [{ op: "add" as const, path: "/x", value: 1 }];
  expect(planDrafts({ nextNode: "b" }, [], context())).toEqual([{ kind: "step", data: { nextNode: "b" } }]);
  expect(planDrafts({ nextNode: "b" }, patch, context())).toEqual([{ kind: "step", data: { patch, nextNode: "b" } }]);
  expect(planDrafts({ completeOutput: {} }, patch, context())).toEqual([{ kind: "run_completed", data: { patch, output: {} } }]);
  expect(planDrafts({ failure: { message: "no" } }, [], context())).toMatchObject([
    { kind: "run_failed", data: { error: { code: "RUN_FAILED_BY_PLAN", message: "no" } } },
  ]);
  expect(
    planDrafts({ effect: { type: "t", payload: { n: 1 }, resultKey: "x" }, nextNode: "b", errorNode: "c" }, patch, context()),
  ).toEqual([
    {
      kind: "effect_started",
      effectId: "3",
      attempt: 1,
      data: { patch, intent: { type: "t", payload: { n: 1 }, resultKey: "x", nextNode: "b", errorNode: "c" } },
    },
  ]);
  expect(
    planDrafts({ effect: { type: "wait_event", payload: { wait_key: "k", resume_to_node: "c" } }, nextNode: "b" }, [], context()),
  ).toMatchObject([{ kind: "parked", effectId: "3", data: { intent: { nextNode: "c" }, wait: { waitKey: "k" } } }]);
});

test("members get ids below their group's", () => {
  const member = { type: "t", payload: {} };
  const drafts = planDrafts(
    { effect: { type: "all", payload: { effects: [member, { type: "any", payload: { effects: [member] } }] } }, nextNode: "b" },
    [],
    context(),
  );
  expect(drafts.map(({ effectId }) => effectId)).toEqual(["3", "3.0", "3.1", "3.1.0"]);
  expect(drafts[3]).toMatchObject({ data: { intent: { parent: "3.1", index: 0 } } });
});

test("nodes that do not exist are refused, wherever they are named", () => {
  for (const plan of [
    { nextNode: "x" },
    { effect: { type: "t" }, nextNode: "x" },
    { effect: { type: "t" }, nextNode: "b", errorNode: "x" },
    { effect: { type: "t" }, nextNode: "b", timeoutNode: "x" },
    { effect: { type: "wait_event", payload: { waitKey: "k", resumeToNode: "x" } }, nextNode: "b" },
  ]) {
    expect(() => planDrafts(plan, [], context())).toThrow(/NODE_UNKNOWN: node "a" names node "x"/);
  }
});

const rules = (onUncertain: "retry" | "fail" | "ask" = "retry") => ({
  policy: readPolicy({ maxAttempts: 2, backoff: { initialMs: 100, jitter: 0 } }),
  onUncertain,
});
const error = { name: "Error", message: "no" };
const kindsOf = (drafts: readonly { kind: string }[] | undefined) => drafts?.map(({ kind }) => kind);

test("a failure is tried again while there are attempts, then ends effect and run", () => {
  const once = state([{}]);
  const failed = { kind: "failed" as const, error, retryable: true };
  expect(outcomeDrafts(once, once.open.get("1")!, failed, rules(), now, 0.5)).toEqual([
    { kind: "effect_failed", effectId: "1", attempt: 1, data: { error, retryAt: now + 100 } },
  ]);
  for (const [effect, outcome] of [
    [{ attempt: 2 }, failed],
    [{}, { ...failed, retryable: false }],
  ] as const) {
    const last = state([effect]);
    const drafts = outcomeDrafts(last, last.open.get("1")!, outcome, rules(), now, 0.5);
    expect(kindsOf(drafts)).toEqual(["effect_failed", "run_failed"]);
    expect(drafts[1]).toMatchObject({ data: { error: { code: "EFFECT_FAILED" } } });
  }
  const caught = state([{ attempt: 2, errorNode: "c" }]);
  expect(outcomeDrafts(caught, caught.open.get("1")!, failed, rules(), now, 0.5)).toMatchObject([
    { kind: "effect_failed", data: { error, nextNode: "c" } },
  ]);
});

test("what may have happened follows onUncertain", () => {
  const uncertain = { kind: "uncertain" as const, reason: "gone", error };
  const open = state([{}]);
  const drafts = (onUncertain: "retry" | "fail" | "ask", of = open) =>
    outcomeDrafts(of, of.open.get("1")!, uncertain, rules(onUncertain), now, 0.5);
  expect(drafts("retry")).toMatchObject([{ kind: "effect_uncertain", data: { reason: "gone", retryAt: now + 100 } }]);
  expect(drafts("ask")).toMatchObject([
    { kind: "effect_uncertain", data: { wait: { reason: "user", waitKey: "uncertain:r:1:1", allowFreeText: false } } },
  ]);
  expect(kindsOf(drafts("fail"))).toEqual(["effect_uncertain", "effect_failed", "run_failed"]);
  expect(kindsOf(drafts("retry", state([{ attempt: 2 }])))).toEqual(["effect_uncertain", "effect_failed", "run_failed"]);
});

test("what is due: joined groups, backoffs, deadlines, moments; and nothing before its time", () => {
  const parked = (wait: object): Partial<OpenEffect> => ({
    phase: "parked",
    attempt: 0,
    wait: { reason: "event", waitKey: "k", since: now, ...wait } as any,
  });
  expect(dueDrafts(state([parked({})]), now)).toEqual([]);
  expect(dueDrafts(state([parked({ until: now + 1 })]), now)).toEqual([]);
  expect(dueDrafts(state([{ phase: "backing_off", retryAt: now + 1 }]), now)).toEqual([]);
  expect(dueDrafts(state([{ phase: "backing_off", retryAt: now }]), now)).toEqual([
    { kind: "effect_started", effectId: "1", attempt: 2, data: {} },
  ]);
  expect(dueDrafts(state([parked({ reason: "until", until: now })]), now)).toMatchObject([
    { kind: "effect_completed", data: { result: { ready: true } } },
  ]);
  expect(kindsOf(dueDrafts(state([parked({ until: now })]), now))).toEqual(["effect_failed", "run_failed"]);
  expect(dueDrafts(state([{ ...parked({ until: now }), timeoutNode: "c" }]), now)).toMatchObject([
    { kind: "effect_failed", data: { nextNode: "c", error: { code: "WAIT_TIMEOUT" } } },
  ]);
  expect(dueDrafts(state([{ type: "all", phase: "joining", pending: 0, results: [] }]), now)).toMatchObject([
    { data: { collect: true } },
  ]);
  expect(dueDrafts(state([{ type: "all", phase: "joining", pending: 1, results: [] }]), now)).toEqual([]);
});

const mail = (more: Partial<Mail>): Mail => ({
  id: "m",
  kind: "answer",
  key: "k",
  payload: { text: "y" },
  position: 1,
  at: now,
  ...more,
});
const waiting = (more: Partial<OpenEffect> = {}): Partial<OpenEffect> => ({
  phase: "parked",
  wait: { reason: "event", waitKey: "k", since: now },
  ...more,
});

test("messages: taken where they are waited for, kept when they may be early, ignored when nobody is left", () => {
  expect(messageDrafts(state([waiting()]), mail({ kind: "event" }))).toMatchObject([
    { kind: "delivered", effectId: "1", data: { outcome: "result" } },
  ]);
  expect(messageDrafts(state([waiting()]), mail({ kind: "event", key: "other" }))).toBeUndefined();
  expect(messageDrafts(state([waiting()]), mail({ kind: "job", key: "other" }))).toBeUndefined();
  expect(messageDrafts(state([waiting()]), mail({ key: "other" }))).toMatchObject([{ data: { outcome: "ignored" } }]);
  // An event never answers a question, whatever its name.
  const question = state([waiting({ wait: { reason: "user", waitKey: "k", since: now } })]);
  expect(messageDrafts(question, mail({ kind: "event" }))).toBeUndefined();
});

test("a child's end is taken by the effect that waits for it, and noted where nobody does", () => {
  const key = childKey(childId("r", "1"));
  const end = mail({ kind: "child_end", key, payload: { runId: childId("r", "1"), status: "completed", output: [1] } });
  expect(messageDrafts(state([]), end)).toMatchObject([{ data: { outcome: "ignored" } }]);
  const parked = state([waiting({ type: "start_subworkflow", wait: { reason: "subworkflow", waitKey: key, since: now } })]);
  const [taken] = messageDrafts(parked, end)!;
  expect(taken).toMatchObject({ data: { outcome: "result", result: { subRunId: childId("r", "1"), output: [1] } } });
  // The output stands in the record once.
  expect(JSON.stringify(taken).match(/\[1\]/g)).toHaveLength(1);
});

test("a message that cannot be recorded fails what waited for it, without its content", () => {
  const refused = { name: "Error", message: "too large" };
  expect(messageDrafts(state([waiting()]), mail({}), refused)).toMatchObject([
    { kind: "delivered", data: { payload: null, outcome: "failed", error: refused } },
    { kind: "run_failed" },
  ]);
});

test("an answer about uncertainty is a retry or a result; a later attempt's own question is not about it", () => {
  const asked = (waitKey: string) =>
    state([{ uncertain: true, attempt: 2, phase: "parked", wait: { reason: "user", waitKey, since: now } }]);
  const about = asked("uncertain:r:1:2");
  expect(messageDrafts(about, mail({ key: "uncertain:r:1:2", payload: { retry: true } }))).toMatchObject([
    { data: { outcome: "retry" } },
  ]);
  expect(messageDrafts(about, mail({ key: "uncertain:r:1:2", payload: { result: 5 } }))).toMatchObject([
    { data: { outcome: "result", result: 5 } },
  ]);
  const [own] = messageDrafts(asked("review"), mail({ key: "review", payload: { retry: true } }))!;
  expect(own).toMatchObject({ data: { outcome: "result", payload: { retry: true } } });
  expect((own as any).data.result).toBeUndefined();
});

test("children have ids of their own, derived and in the form of a UUID", () => {
  expect(childId("r", "1")).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(childId("r", "1")).toBe(childId("r", "1"));
  expect(new Set([childId("r", "1"), childId("r", "2"), childId("r1", ""), childId("r", "1.0")]).size).toBe(4);
});
