/** The lines in which runs stand for workers. They never change and never go, so what was read of them stays true. */
import type { PostgresClient, Statements } from "./connection.ts";
import { jsonOf } from "./encode.ts";

export interface LaneName {
  workflowId: string;
  queue: string | null;
  priority: number;
  /** Of a queue: whether its runs were claimed before. */
  begun: boolean;
}

export class Lanes {
  readonly #byName: Map<string, number>;

  /** @param known Lanes that are known already. */
  constructor(known?: Lanes) {
    this.#byName = new Map(known ? known.#byName : []);
  }

  /** The number of a lane that is known here. */
  of(lane: LaneName): number | undefined {
    return this.#byName.get(nameOf(lane));
  }

  /**
   * Finds lanes, and makes those that are missing. In a transaction of its own: a lane that nobody stands in harms nobody, and what
   * is known here is there for all.
   */
  async know(statements: Statements, client: PostgresClient, lanes: readonly LaneName[]): Promise<void> {
    // A queue has two lanes, so that a run that begins finds its next one.
    const wanted = `(SELECT DISTINCT w.workflow_id COLLATE "C" AS workflow_id, w.queue COLLATE "C" AS queue, w.priority, b.begun
      FROM json_to_recordset($1::json) w (workflow_id text, queue text, priority bigint)
      CROSS JOIN (VALUES (false), (true)) b (begun) WHERE w.queue IS NOT NULL OR NOT b.begun)`;
    const json = jsonOf(lanes.map(({ workflowId, queue, priority }) => ({ workflow_id: workflowId, queue, priority })));
    const insert = `INSERT INTO ~lanes (workflow_id, queue, priority, begun) SELECT * FROM ${wanted} x
      ORDER BY workflow_id, queue, priority, begun ON CONFLICT DO NOTHING`;
    await statements.rows(client, insert, [json]);
    const found = `SELECT l.lane, l.workflow_id, l.queue, l.priority, l.begun FROM ${wanted} w JOIN ~lanes l
      ON l.workflow_id = w.workflow_id AND l.queue IS NOT DISTINCT FROM w.queue AND l.priority = w.priority AND l.begun = w.begun`;
    for (const { lane, workflow_id, queue, priority, begun } of await statements.rows(client, found, [json]))
      this.#byName.set(
        nameOf({
          workflowId: workflow_id as string,
          queue: queue as string | null,
          priority: priority as number,
          begun: begun as boolean,
        }),
        lane as number,
      );
  }
}

function nameOf({ workflowId, queue, priority, begun }: LaneName): string {
  return JSON.stringify([workflowId, queue, priority, begun]);
}
