/** Child processes of a test, and their messages. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRuntime, type Runtime } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { mixedWorkflows } from "./mixed.ts";
import type { Order, PeerTask, Report, Told } from "./peer.ts";
import { memoryOutside, type Sighting } from "./workload.ts";

export class Peer implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #told: Told[] = [];
  readonly #exit: Promise<[number | null, NodeJS.Signals | null]>;
  #ended = false;
  #heard: (() => void)[] = [];

  private constructor(task: PeerTask) {
    this.#child = fork(join(import.meta.dirname, "peer.ts"), [JSON.stringify(task)], { execArgv: process.execArgv });
    this.#exit = once(this.#child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
    this.#child.on("message", (told: Told) => this.#hear(() => this.#told.push(told)));
    this.#child.on("exit", () =>
      this.#hear(() => {
        this.#ended = true;
      }),
    );
  }

  static async start(task: PeerTask): Promise<Peer> {
    const peer = new Peer(task);
    await peer.told("ready");
    return peer;
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  send(order: Order): void {
    this.#child.send(order);
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** The next message of that kind, come or to come. */
  async told<K extends Told["kind"]>(kind: K): Promise<Extract<Told, { kind: K }>> {
    for (;;) {
      const at = this.#told.findIndex((told) => told.kind === kind);
      if (at >= 0) return this.#told.splice(at, 1)[0] as Extract<Told, { kind: K }>;
      if (this.#ended) throw new Error(`the process ended before it said "${kind}"`);
      await new Promise<void>((resolve) => this.#heard.push(resolve));
    }
  }

  async report(): Promise<Report> {
    this.send({ do: "report" });
    return (await this.told("report")).report;
  }

  async exit(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    const [code, signal] = await this.#exit;
    return { code, signal };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exit;
  }

  #hear(note: () => void): void {
    note();
    for (const wake of this.#heard.splice(0)) wake();
  }
}

/** Starts, answers and looks, and drives nothing. */
export async function observer(directory: string): Promise<Runtime> {
  const workflows = mixedWorkflows(memoryOutside(), Promise.resolve());
  return createRuntime({ store: await sqliteStore(`${directory}/runs.db`), workflows, scheduler: false });
}

/** How often each effect was started, by its key. */
export function startsByKey(sightings: readonly Sighting[]): Map<string, number> {
  const starts = sightings.filter(({ event }) => event === "start");
  return new Map([...Map.groupBy(starts, ({ key }) => key)].map(([key, group]) => [key, group.length]));
}

export async function liveRuns(runtime: Runtime): Promise<string[]> {
  const { runs } = await runtime.list({ status: ["running", "waiting"], limit: 1_000 });
  return runs.map(({ runId }) => runId);
}

/** A directory that is gone when its scope ends. */
export function scratch(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), "crash-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
