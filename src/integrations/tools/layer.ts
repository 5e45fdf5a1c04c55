/**
 * Several layers may each wait for something in one tool call: an approval, a budget, the executor itself. A layer's waits have keys of
 * its own, and each layer sees only the answers to its own.
 */
import type { EffectContext, Json } from "../../index.ts";

/** The key of a wait that a layer returns from this attempt. It is to be one of a kind within the run, and short: people type it. */
export function layerKey(layer: string, { idempotencyKey, attempt }: EffectContext): string {
  return `${layer}:${idempotencyKey.slice(0, 16)}:${attempt}`;
}

/** What a layer's waits were answered with, in order. */
export function layerAnswers(layer: string, { answers, answered }: EffectContext): { payload: Json; actorId?: string }[] {
  return answered.flatMap(({ waitKey, actorId }, i) =>
    isOf(layer, waitKey) ? [{ payload: answers[i] as Json, ...(actorId === undefined ? {} : { actorId }) }] : [],
  );
}

/** The context for what a layer wraps: without the layer's answers, and without what its last wait said. */
export function beneathLayer(layer: string, context: EffectContext): EffectContext {
  const { answers, answered, timedOut, cancelled } = context;
  if (!answered.some(({ waitKey }) => isOf(layer, waitKey))) return context;
  const isOther = (_: unknown, i: number): boolean => !isOf(layer, answered[i]?.waitKey ?? "");
  // A deadline that has passed, or a cancel, is of a wait that came after all answers.
  const isOwn = !timedOut && !cancelled && isOf(layer, answered.at(-1)?.waitKey ?? "");
  const waited = isOwn ? undefined : context.waited;
  return withMembers(context, { answers: answers.filter(isOther), answered: answered.filter(isOther), waited });
}

/** A context some of whose members are others. */
export function withMembers(context: EffectContext, members: Partial<EffectContext>): EffectContext {
  return new Proxy(context, {
    get(target, name) {
      if (Object.hasOwn(members, name)) return members[name as keyof EffectContext];
      // Getters and methods work on the context itself: its private parts are not the proxy's.
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

function isOf(layer: string, waitKey: string): boolean {
  return waitKey.startsWith(`${layer}:`);
}
