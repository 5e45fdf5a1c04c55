/** The artifacts of one run that is being driven: what is too large for its ledger is put, and what it refers to is kept. */
import { artifactIdsWritten } from "./artifact.ts";
import type { DriveHost } from "./drive-host.ts";
import { AbstractRuntimeError, type ErrorData, errorData } from "./errors.ts";
import type { JsonObject } from "./json.ts";
import { type Look, look, offloadPatch, offloadResult, type Offloaded } from "./offload.ts";
import type { Patch } from "./patch.ts";
import type { RecordDraft } from "./record.ts";
import type { Outcome } from "./step.ts";
import type { Mail } from "./message.ts";

/** From a look at what is to be recorded until the commit. */
const pinMs = 24 * 60 * 60 * 1_000;

interface KindOfEffect {
  isSpeculative: boolean;
  isTransactional?: boolean;
  keepsShape?: boolean | undefined;
}

export class RunArtifacts {
  readonly #host: DriveHost;
  readonly #runId: string;
  /** Known to be kept until the next commit. */
  readonly #kept = new Set<string>();
  /** Messages that refer to what is not known, by id. */
  readonly #refused = new Map<string, ErrorData>();

  constructor(host: DriveHost, runId: string) {
    this.#host = host;
    this.#runId = runId;
  }

  /** What a node has decided, ready to be recorded. @throws ARTIFACT_MISSING */
  drafts(drafts: RecordDraft[]): RecordDraft[] | Promise<RecordDraft[]> {
    const { offloadBytes } = this.#host.limits;
    const found = nothingFound();
    for (const draft of drafts) {
      const data = draft.data as JsonObject & { patch?: Patch };
      for (const part in data) look(data[part], part === "patch" ? offloadBytes : Infinity, found);
      for (const id of artifactIdsWritten(data.patch)) found.ids = (found.ids ?? new Set()).add(id);
    }
    const isKept = [...(found.ids ?? [])].every((id) => this.#kept.has(id));
    return found.large || !isKept ? this.#prepare(drafts, found) : drafts;
  }

  async #prepare(drafts: RecordDraft[], { ids = new Set(), large }: Look): Promise<RecordDraft[]> {
    await this.#keep(ids);
    if (!large) return drafts;
    return Promise.all(
      drafts.map(async (draft) => {
        const { patch } = draft.data as { patch?: Patch };
        if (!patch) return draft;
        const offloaded = await this.#offload(offloadPatch(patch, this.#host.limits.offloadBytes), patch);
        return { ...draft, data: { ...draft.data, patch: offloaded } } as RecordDraft;
      }),
    );
  }

  /**
   * What an attempt came to, ready to be recorded.
   *
   * @param kind.isTransactional Nothing can be put or kept beside the transaction that is under way: it holds the store.
   */
  outcome(
    outcome: Outcome,
    { isSpeculative, isTransactional = false, keepsShape = false }: KindOfEffect,
  ): Outcome | Promise<Outcome> {
    if (outcome.kind !== "completed") return outcome;
    const { result } = outcome;
    const limitBytes = isTransactional ? Infinity : this.#host.limits.offloadBytes;
    const found = nothingFound();
    look(result, limitBytes, found);
    if (!found.ids && !found.large && found.size * 6 <= limitBytes) return outcome;
    const prepare = async (): Promise<Outcome> => {
      await (isTransactional ? this.#check(found.ids) : this.#keep(found.ids));
      return { kind: "completed", result: await this.#offload(offloadResult(result, limitBytes, found, keepsShape), result) };
    };
    // It happened, and what it gave cannot be recorded: only what may always be run again is.
    return prepare().catch((error: unknown) => ({ kind: "failed", error: errorData(error), retryable: isSpeculative }));
  }

  /** Looks at messages that came in. Those that cannot be recorded have a `refusal` then. */
  vet(mail: readonly Mail[]): Promise<void> | undefined {
    const referring = mail.flatMap(({ id, payload }) => {
      const found = nothingFound();
      look(payload, Infinity, found);
      return found.ids ? [{ id, ids: found.ids }] : [];
    });
    return referring.length > 0 ? this.#vet(referring) : undefined;
  }

  async #vet(referring: readonly { id: string; ids: ReadonlySet<string> }[]): Promise<void> {
    for (const { id, ids } of referring)
      await this.#keep(ids).catch((error: unknown) => void this.#refused.set(id, errorData(error)));
  }

  /** Why a message cannot be recorded. */
  refusal(messageId: string): ErrorData | undefined {
    return this.#refused.size > 0 ? this.#refused.get(messageId) : undefined;
  }

  /** @throws ARTIFACT_MISSING */
  async #keep(ids: Iterable<string> = []): Promise<void> {
    for (const artifactId of ids) {
      if (this.#kept.has(artifactId)) continue;
      // Where the store cannot say now, the commit will.
      const isKnown = await this.#host.artifacts.keep(artifactId, pinMs).catch(() => undefined);
      if (isKnown === false) throw this.#missing(artifactId);
      if (isKnown) this.#kept.add(artifactId);
    }
  }

  /** @throws ARTIFACT_MISSING */
  async #check(ids: Iterable<string> = []): Promise<void> {
    for (const artifactId of ids) if (!(await this.#host.store.artifact(artifactId))) throw this.#missing(artifactId);
  }

  #missing(artifactId: string): AbstractRuntimeError<"ARTIFACT_MISSING"> {
    return new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId, runId: this.#runId });
  }

  /** Puts what was taken out. Where it cannot be put, it is recorded after all. */
  async #offload<T>({ value, texts }: Offloaded<T>, whole: T): Promise<T> {
    const { artifacts, report } = this.#host;
    try {
      for (const [{ $artifact, contentType }, text] of texts) {
        if (this.#kept.has($artifact)) continue;
        await artifacts.putFor(text, contentType === undefined ? {} : { contentType }, pinMs);
        this.#kept.add($artifact);
      }
      return value;
    } catch (error) {
      report?.("a large text could not be put among the artifacts and is recorded as it is", { error, runId: this.#runId });
      return whole;
    }
  }
}

function nothingFound(): Look {
  return { large: false, ids: undefined, size: 0 };
}
