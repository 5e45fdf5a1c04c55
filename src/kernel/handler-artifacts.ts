/** Artifacts for the handler of one attempt: what it puts is kept until its outcome is recorded, however long that takes. */
import type { ArtifactAccess, ArtifactContent, ArtifactKeeper, ArtifactRef, OpenArtifact, PutOptions } from "./artifact.ts";
import type { Clock } from "./clock.ts";

const dayMs = 24 * 60 * 60 * 1_000;
/** Pins are lengthened at most so often. */
const renewMs = 60 * 60 * 1_000;

export class HandlerArtifacts implements ArtifactAccess {
  readonly #keeper: ArtifactKeeper;
  readonly #clock: Clock;
  readonly #pinMs: number;
  readonly #ids = new Set<string>();
  #pinnedAt = 0;

  /** @param timeoutMs The longest time between two calls of `renew`. */
  constructor(keeper: ArtifactKeeper, clock: Clock, timeoutMs: number) {
    this.#keeper = keeper;
    this.#clock = clock;
    this.#pinMs = timeoutMs + dayMs;
  }

  // Fields, so that they may be taken apart from their context.
  readonly put = async (content: ArtifactContent, options: PutOptions = {}): Promise<ArtifactRef> => {
    const { id, contentType, sizeBytes } = await this.#keeper.putFor(content, options, this.#pinMs);
    if (this.#ids.size === 0) this.#pinnedAt = this.#clock.now();
    this.#ids.add(id);
    return { $artifact: id, contentType, sizeBytes };
  };

  readonly open = (artifact: ArtifactRef | string): Promise<OpenArtifact> => this.#keeper.open(artifact);

  /** The attempt is alive and takes longer. */
  renew(): void {
    const now = this.#clock.now();
    if (this.#ids.size === 0 || now - this.#pinnedAt < renewMs) return;
    this.#pinnedAt = now;
    for (const id of this.#ids) {
      // Tried again with the next renewal, long before the pin runs out.
      this.#keeper.keep(id, this.#pinMs).catch(() => {
        this.#pinnedAt = 0;
      });
    }
  }
}
