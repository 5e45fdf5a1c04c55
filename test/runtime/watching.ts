// What the tests of watch() share: an effect that says what it is told to, and a reading of what a reader was shown.
import { defineEffect, type EffectContext, type Store, type StreamPart, type WatchItem } from "../../src/index.ts";

/** What an attempt does: called with its context, it gives the result. */
export type Act = (context: EffectContext, payload: string) => unknown;

/** An effect whose attempts do what `act.now` says. */
export function talking(options: { speculative?: boolean } = {}) {
  const act: { now: Act } = { now: () => null };
  const policy = { maxAttempts: 3, backoff: { initialMs: 0, maxMs: 0, jitter: 0 } };
  const say = defineEffect("say", {
    policy,
    ...options,
    run: (payload: string, context): unknown => act.now(context, payload) as never,
  });
  return { say, act };
}

export function text(content: string): StreamPart {
  return { type: "text", text: content };
}

/** Something to be waited for, and what ends the wait. */
export function gate(): { opened: Promise<void>; open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Items until `isLast` says so, or the end. */
export async function take(
  items: AsyncIterable<WatchItem>,
  isLast: (item: WatchItem) => unknown = () => false,
): Promise<WatchItem[]> {
  const taken: WatchItem[] = [];
  for await (const item of items) {
    taken.push(item);
    if (isLast(item)) break;
  }
  return taken;
}

/** One line an item: records by kind, effect and attempt; neighbouring parts of one attempt and type as one. */
export function lines(items: readonly WatchItem[]): string[] {
  const said: string[] = [];
  let open: { name: string; end: number } | undefined;
  for (const item of items) {
    if (item.kind !== "stream") {
      open = undefined;
      const { kind, effectId, attempt } = item.kind === "record" ? item.record : item;
      said.push([kind, effectId, attempt && `#${attempt}`].filter((part) => part !== undefined).join(" "));
      continue;
    }
    const name = `${item.effectId} #${item.attempt} ${item.part.type}`;
    if (open?.name === name && open.end === item.offset) said.push(`${said.pop()}${item.part.text}`);
    else said.push(`${name} @${item.offset}: ${item.part.text}`);
    open = { name, end: item.offset + item.part.text.length };
  }
  return said;
}

/**
 * Checks the order that every reader is promised, and answers what it was shown: the records, and the text of each attempt from where
 * it was first shown.
 *
 * @param from Where the reader went on from: how far attempts had been shown by then.
 */
export function reading(items: readonly WatchItem[], shown: ReadonlyMap<string, number> = new Map()) {
  const seqs: number[] = [];
  const texts = new Map<string, string>();
  const ends = new Map(shown);
  const begun = new Set(shown.keys());
  const over = new Set<string>();
  const resets = new Set<string>();
  for (const item of items) {
    if (item.kind === "record") {
      const { seq, kind, effectId, attempt } = item.record;
      if (seqs.length > 0 && seq !== (seqs.at(-1) as number) + 1) throw new Error(`record ${seq} came behind ${seqs.at(-1)}`);
      seqs.push(seq);
      if (kind === "effect_started") begun.add(`${effectId} #${attempt}`);
      else if (effectId !== undefined && attempt !== undefined) over.add(`${effectId} #${attempt}`);
      continue;
    }
    const name = `${item.effectId} #${item.attempt}`;
    if (seqs.length > 0 && !begun.has(name) && seqs[0] === 0) throw new Error(`${name} streams before it has begun`);
    if (over.has(name)) throw new Error(`${name} streams behind its outcome`);
    if (item.kind === "reset") {
      if (resets.has(name) || texts.has(name)) throw new Error(`${name} was reset behind its first part`);
      resets.add(name);
      ends.set(name, 0);
      continue;
    }
    if (item.attempt > 1 && item.offset === 0 && !resets.has(name) && !shown.has(name)) throw new Error(`${name} was not reset`);
    const end = ends.get(name) ?? 0;
    if (item.offset !== end) throw new Error(`${name} goes on at ${item.offset}, and ended at ${end}`);
    ends.set(name, item.offset + item.part.text.length);
    texts.set(name, (texts.get(name) ?? "") + item.part.text);
  }
  return { seqs, texts: Object.fromEntries([...texts].sort(([a], [b]) => (a < b ? -1 : 1))), ends };
}

/** Another store object over the same contents, as one of another process would be. */
export function unclosed(store: Store): Store {
  return new Proxy(store, {
    get: (inner, name) => {
      if (name === "close") return async () => undefined;
      const member = Reflect.get(inner, name, inner);
      return typeof member === "function" ? member.bind(inner) : member;
    },
  });
}
