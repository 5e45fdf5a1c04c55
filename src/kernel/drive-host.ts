/** What a driver needs of the process it lives in. */
import type { ArtifactKeeper } from "./artifact.ts";
import type { Clock, Ids } from "./clock.ts";
import type { EffectDefinition, Logger } from "./effect.ts";
import type { Limits } from "./execute.ts";
import type { Slots } from "./executions.ts";
import type { Instrument } from "./instrument.ts";
import type { LedgerRecord } from "./record.ts";
import type { RunRow } from "./run.ts";
import type { NewRun } from "./transition.ts";
import type { Store } from "./store.ts";
import type { Streams } from "./stream.ts";
import type { Workflow } from "./workflow.ts";

export interface DriveHost {
  readonly store: Store;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Logger;
  readonly limits: Limits;
  readonly artifacts: ArtifactKeeper;
  /** Where streams of attempts go. Default: nowhere. */
  readonly streams?: Streams;
  /** Is told what drivers do while they do it. */
  readonly instrument?: Instrument | undefined;
  /** Now, by the store's clock. */
  now(): number;
  /** How long drivers have kept the event loop since it last had its turn, in milliseconds. */
  loopBusyMs(): number;
  /** Whether this worker's leases are surely still its own. Asked before every non-speculative effect. */
  holdsLeases(): boolean;
  /** How often its leases had run out before they were renewed. */
  leaseLapses(): number;
  renewLeases(): Promise<void>;
  /** Names the code of this process, for blocks. */
  readonly fingerprint: string;
  workflow(id: string): Workflow | undefined;
  /** The ids of the workflows that `workflow` knows, for messages. */
  workflowIds?(): readonly string[];
  effect(type: string, workflow: Workflow): EffectDefinition | undefined;
  /** How many effects of a type execute at the same time in this process. Default: no limit. */
  readonly slots?: Slots;
  /** How long a run that gathers the ends of children stays here for the next one, in milliseconds. Default: 0. */
  readonly lingerMs?: number;
  /** Called when a durable commit has created runs or sent messages to these. */
  reached?(runIds: readonly string[]): void;
  /** Is told what nobody else would hear of. */
  report?(message: string, fields: { error?: unknown; runId?: string }): void;
  /** Called with children once they are durable. */
  started?(runs: readonly NewRun[]): void;
  /** Called with records, and the row after them, once they are durable. */
  committed?(records: readonly LedgerRecord[], row: RunRow): void;
  /** Replaced only by the benchmark that prices hashing. */
  readonly hashText?: (text: string) => string;
}
