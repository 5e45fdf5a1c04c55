/** The lines in which runs stand for workers. They never change and never go, so what was read of them stays true. */
import type { Capability } from "../../kernel/transition.ts";
import { serves } from "../slots.ts";
import type { Reader } from "./read.ts";

export interface Lane {
  lane: number;
  workflowId: string;
  queue: string | null;
  priority: number;
  /** Of a queue: whether its runs were claimed before. */
  begun: boolean;
}

type LaneName = Omit<Lane, "lane">;

export class Lanes {
  readonly #reader: Reader;
  readonly #lanes: Lane[] = [];
  readonly #byName = new Map<string, number>();

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  /** The number of a lane, which is made when there is none. Inside a transaction. */
  of(lane: LaneName): number {
    const known = this.#byName.get(nameOf(lane));
    if (known !== undefined) return known;
    this.all();
    const { workflowId, queue, priority, begun } = lane;
    const found = this.#byName.get(nameOf(lane));
    if (found !== undefined) return found;
    const { lastInsertRowid } = this.#reader
      .prepare("INSERT INTO lanes (workflow_id, queue, priority, begun) VALUES (?, ?, ?, ?)")
      .run(workflowId, queue, priority, begun ? 1 : 0);
    this.#keep({ ...lane, lane: Number(lastInsertRowid) });
    return Number(lastInsertRowid);
  }

  /** Those made by other processes since are read now. */
  all(): readonly Lane[] {
    const last = this.#lanes.at(-1)?.lane ?? 0;
    const { newest } = this.#reader.prepare("SELECT max(lane) AS newest FROM lanes").get() as { newest: number | null };
    if (newest !== null && newest > last) {
      const rows = this.#reader.prepare("SELECT * FROM lanes WHERE lane > ? ORDER BY lane").all(last);
      for (const { lane, workflow_id, queue, priority, begun } of rows) {
        this.#keep({
          lane: lane as number,
          workflowId: workflow_id as string,
          queue: queue as string | null,
          priority: priority as number,
          begun: begun === 1,
        });
      }
    }
    return this.#lanes;
  }

  /** Those whose runs a worker can drive. */
  known(worker: Capability): Lane[] {
    const workflows = worker.workflows && new Set(worker.workflows);
    return this.all().filter(({ workflowId, queue }) => (!workflows || workflows.has(workflowId)) && serves(worker, queue));
  }

  /** What was made in a transaction that was rolled back is not there, and its numbers will be given to others. */
  rolledBack(): void {
    this.#lanes.length = 0;
    this.#byName.clear();
  }

  #keep(lane: Lane): void {
    this.#lanes.push(lane);
    this.#byName.set(nameOf(lane), lane.lane);
  }
}

function nameOf({ workflowId, queue, priority, begun }: LaneName): string {
  return JSON.stringify([workflowId, queue, priority, begun]);
}
