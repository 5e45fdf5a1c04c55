/** The messages of one run that its driver knows and has not taken, in the order of their arrival. */
import type { Mail } from "./message.ts";

export class Inbox {
  #mail: Mail[];
  #seen: number;
  /** Whether something may mean more than when it was last looked at. */
  #changed = true;
  /** What came since `fresh` was asked for. */
  #fresh: Mail[];

  constructor(mail: readonly Mail[]) {
    this.#mail = [...mail];
    this.#fresh = [...mail];
    this.#seen = mail.at(-1)?.position ?? 0;
  }

  /** Position of the last message known. */
  get seen(): number {
    return this.#seen;
  }

  add(mail: readonly Mail[]): void {
    if (mail.length === 0) return;
    for (const message of mail) {
      this.#mail.push(message);
      this.#fresh.push(message);
    }
    this.#seen = (mail.at(-1) as Mail).position;
    this.#changed = true;
  }

  /** The messages that came since the last call. */
  fresh(): readonly Mail[] {
    if (this.#fresh.length === 0) return none;
    const fresh = this.#fresh;
    this.#fresh = [];
    return fresh;
  }

  /** The state has changed in a way that an early message may have waited for. */
  lookAgain(): void {
    this.#changed = true;
  }

  /** Offers every message, first come first. `take` answers whether it took the message. */
  offer(take: (mail: Mail) => boolean): void {
    if (!this.#changed) return;
    this.#changed = false;
    for (let again = true; again; ) {
      again = false;
      const kept: Mail[] = [];
      for (const [i, mail] of this.#mail.entries()) {
        if (!take(mail)) {
          kept.push(mail);
          continue;
        }
        if (mail.kind !== "control") continue;
        // An unpause opens the way for messages that came before it.
        kept.push(...this.#mail.slice(i + 1));
        again = true;
        break;
      }
      this.#mail = kept;
    }
  }
}

const none: readonly Mail[] = [];
