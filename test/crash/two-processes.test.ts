// Two processes on one SQLite file: nothing happens twice, nobody waits long for the other, and the death of one is the other's
// business at once.
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { mixedOutputs } from "./mixed.ts";
import type { Report } from "./peer.ts";
import { eventually } from "../eventually.ts";
import { liveRuns, observer, Peer, scratch, startsByKey } from "./processes.ts";
import { fileOutside } from "./workload.ts";

const full = process.env.CRASH_SWEEP === "full";
const kinds = Object.keys(mixedOutputs);

test("two processes drive the same 200 runs: each ends right, each transition happens once, neither blocks the other", async () => {
  using directory = scratch();
  await using parent = await observer(directory.path);
  await using idle = await Peer.start({ directory: directory.path, idle: true });
  await using one = await Peer.start({ directory: directory.path });
  await using two = await Peer.start({ directory: directory.path });

  const outside = fileOutside(`${directory.path}/outside.jsonl`);
  const pids = (): Set<number> => new Set(outside.seen().map(({ pid }) => pid));
  const started: { kind: string; n: number }[] = [];
  const startMore = (count: number): Promise<unknown> => {
    const more = Array.from({ length: count }, (_, i) => started.length + i);
    const runs = more.map((n) => ({ kind: kinds[n % kinds.length] as string, n }));
    started.push(...runs);
    return Promise.all(runs.map(({ kind, n }) => parent.start(kind, { runId: `${kind}-${n}`, vars: { n } })));
  };
  await startMore(200);
  await eventually(async () => {
    const { runs } = await parent.list({ waitReason: "user", status: "waiting", limit: 1_000 });
    await Promise.all(runs.map(({ runId }) => parent.respond(runId, "yes").catch(() => undefined)));
    if ((await liveRuns(parent)).length > 0) return false;
    if (pids().size === 2) return true;
    // The machine let one of them do everything: there is more to do, until both took part.
    await startMore(kinds.length);
    return false;
  });
  const reports = { one: await one.report(), two: await two.report(), idle: await idle.report() };
  for (const peer of [one, two, idle]) peer.send({ do: "stop" });
  for (const peer of [one, two, idle]) expect(await peer.exit()).toEqual({ code: 0, signal: null });

  for (const { kind, n } of started) {
    const runId = `${kind}-${n}`;
    const run = await parent.get(runId);
    expect([runId, run.status, run.output]).toEqual([runId, "completed", mixedOutputs[kind]?.(n)]);
    expect((await parent.verify(runId)).problems).toEqual([]);
  }
  const sightings = outside.seen();
  const effectsPerRun: Record<string, number> = { barrier: 10, timer: 3, asked: 1 };
  expect(new Set(startsByKey(sightings).values())).toEqual(new Set([1]));
  expect(startsByKey(sightings).size).toBe(started.reduce((sum, { kind }) => sum + (effectsPerRun[kind] ?? 0), 0));
  expect(new Set(sightings.map(({ attempt }) => attempt))).toEqual(new Set([1]));
  expect(pids()).toEqual(new Set([one.pid, two.pid]));

  print(reports);
  // What the other can do to one is make it wait for a lock. What the machine does to everybody shows in the idle process, if it was
  // its turn then: on a machine that is busy with something else this says nothing.
  const noiseMs = Math.max(reports.idle.turnMs, reports.idle.loopDelayMs);
  if (full) for (const { lockMs } of [reports.one, reports.two]) expect(lockMs).toBeLessThan(50 + noiseMs);
});

function print(reports: Record<string, Report>): void {
  const lines = Object.entries(reports).map(([name, report]) => {
    const figures = Object.entries(report).map(([key, value]) => `${key} ${Math.round(value * 10) / 10}`);
    return `${name.padEnd(4)} ${figures.join("  ")}`;
  });
  process.stdout.write(
    `Longest times in two processes that share 200 runs, and in an idle one beside them:\n${lines.join("\n")}\n`,
  );
}

test("the runs of a killed process go on in the other at once, not after its lease", async () => {
  using directory = scratch();
  await using parent = await observer(directory.path);
  const outside = fileOutside(`${directory.path}/outside.jsonl`);
  await using victim = await Peer.start({ directory: directory.path, leaseMs: 3_600_000 });
  const runIds = Array.from({ length: 10 }, (_, n) => `gated-${n}`);
  for (const [n, runId] of runIds.entries()) await parent.start("gated", { runId, vars: { n } });
  await eventually(() => startsByKey(outside.seen()).size === 20);

  await using heir = await Peer.start({ directory: directory.path });
  heir.send({ do: "open gates" });
  const killedAt = performance.now();
  victim.kill("SIGKILL");
  await eventually(async () => (await liveRuns(parent)).length === 0);
  const tookMs = performance.now() - killedAt;
  process.stdout.write(`Runs of a killed process ended in the other after ${Math.round(tookMs)} ms; its lease was an hour\n`);

  const sightings = outside.seen();
  for (const [n, runId] of runIds.entries()) {
    expect((await parent.get(runId)).output).toEqual([n, n + 1, n]);
    expect((await parent.verify(runId)).problems).toEqual([]);
  }
  // Each `hold` twice, the second time knowing that it is uncertain, under the same key; each `act` once.
  for (const [, seen] of Map.groupBy(
    sightings.filter(({ event }) => event === "start"),
    ({ key }) => key,
  )) {
    const [first, second] = seen;
    if (first?.type === "act") expect(seen).toHaveLength(1);
    else {
      expect(seen).toHaveLength(2);
      expect([first?.pid, first?.uncertain, second?.pid, second?.uncertain]).toEqual([victim.pid, false, heir.pid, true]);
    }
  }
});

test("of two processes that answer one wait at the same moment, one is accepted and the next step runs once", async () => {
  using directory = scratch();
  await using parent = await observer(directory.path);
  await using one = await Peer.start({ directory: directory.path });
  await using two = await Peer.start({ directory: directory.path });
  const rounds = full ? 1_000 : 50;
  const runIds = Array.from({ length: rounds }, (_, n) => `asked-${n}`);
  for (const [n, runId] of runIds.entries()) await parent.start("asked", { runId, vars: { n } });
  await eventually(async () => (await parent.list({ waitReason: "user", limit: 1_000 })).runs.length === rounds);

  for (const runId of runIds) {
    const at = Date.now() + 5;
    one.send({ do: "answer", runId, at, text: "yes" });
    two.send({ do: "answer", runId, at, text: "no" });
    const answers = [await one.told("answered"), await two.told("answered")];
    expect(answers.map((told) => told.runId)).toEqual([runId, runId]);
    expect(answers.map(({ code }) => code).sort()).toEqual(["ALREADY_ANSWERED", "accepted"]);
    // The answer that was accepted is the one that counts.
    const text = answers[0]?.code === "accepted" ? "yes" : "no";
    expect(await parent.result(runId, { timeoutMs: 100_000 })).toEqual([Number(runId.slice(6)), text]);
    expect((await parent.verify(runId)).problems).toEqual([]);
    const taken = (await parent.ledger(runId)).filter(({ kind }) => kind === "delivered");
    expect(taken).toHaveLength(1);
  }
  const starts = startsByKey(fileOutside(`${directory.path}/outside.jsonl`).seen());
  expect(starts.size).toBe(rounds);
  expect(new Set(starts.values())).toEqual(new Set([1]));
});

test("a process that slept for longer than its lease cannot commit, and the run goes on once", async () => {
  using directory = scratch();
  await using parent = await observer(directory.path);
  const outside = fileOutside(`${directory.path}/outside.jsonl`);
  await using sleeper = await Peer.start({ directory: directory.path });
  await parent.start("gated", { runId: "gated", vars: { n: 1 } });
  await eventually(() => startsByKey(outside.seen()).size === 2);
  sleeper.send({ do: "sleep" });
  await sleeper.told("sleeping");
  // As if it had slept for that long.
  const database = new DatabaseSync(`${directory.path}/runs.db`);
  database.exec("PRAGMA busy_timeout = 60000; UPDATE workers SET expires_at = 0");
  database.close();

  await using heir = await Peer.start({ directory: directory.path });
  // It lives, so the mark tells nothing: the heir starts both again because the lease has run out.
  const startedByHeir = () => outside.seen().filter(({ event, pid }) => event === "start" && pid === heir.pid);
  await eventually(() => startedByHeir().length === 2);
  sleeper.send({ do: "open gates" });
  sleeper.kill("SIGCONT");
  // The sleeper finishes what it began, and may not record it.
  await eventually(() => outside.seen().filter(({ event, pid }) => event === "done" && pid === sleeper.pid).length >= 2);
  const [first, second] = startedByHeir().map(({ attempt }) => attempt);
  heir.send({ do: "open gates" });
  expect(await parent.result("gated", { timeoutMs: 100_000 })).toEqual([1, 2, 1]);

  expect((await parent.verify("gated")).problems).toEqual([]);
  const ledger = await parent.ledger("gated");
  const attempts = ledger.flatMap(({ kind, effectId, attempt }) =>
    kind === "effect_completed" ? [`${effectId} ${attempt}`] : [],
  );
  expect(attempts.sort()).toEqual(["1 undefined", `1.0 ${first}`, `1.1 ${second}`, "2 1"]);
  expect(outside.seen().filter(({ type, event }) => type === "act" && event === "start")).toHaveLength(1);
  // It is of use again.
  await parent.start("barrier", { runId: "barrier", vars: { n: 1 } });
  heir.send({ do: "stop" });
  expect(await heir.exit()).toEqual({ code: 0, signal: null });
  expect(await parent.result("barrier", { timeoutMs: 100_000 })).toBe(11);
});

test("processes that open a new file at the same moment all get in", async () => {
  for (let round = 0; round < 3; round++) {
    using directory = scratch();
    const peers = await Promise.all([0, 1, 2].map(() => Peer.start({ directory: directory.path })));
    await using parent = await observer(directory.path);
    await parent.start("barrier", { runId: "barrier", vars: { n: round } });
    expect(await parent.result("barrier", { timeoutMs: 100_000 })).toBe(round + 10);
    for (const peer of peers) peer.send({ do: "stop" });
    for (const peer of peers) expect(await peer.exit()).toEqual({ code: 0, signal: null });
  }
});
