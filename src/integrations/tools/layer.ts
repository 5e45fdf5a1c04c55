/**
 * Several layers may each wait for something in one tool call: an approval, a budget, the executor itself. A layer's waits have keys of
 * its own, and each layer sees only the answers to its own.
 */
import type { EffectContext } from "../../index.ts";

/** The key of a wait that a layer returns from this attempt. It is to be one of a kind within the run, and short: people type it. */
export function layerKey(layer: string, { idempotencyKey, attempt }: EffectContext): string {
  return `${layer}:${idempotencyKey.slice(0, 16)}:${attempt}`;
}

/** What a layer's waits were answered with, in order. */
export function layerAnswers(layer: string, { answers }: Pick<EffectContext, "answers">): EffectContext["answers"] {
  return answers.filter(({ waitKey }) => isOf(layer, waitKey));
}

/** The context for what a layer wraps: without the layer's answers, and without what its last wait said. */
export function beneathLayer(layer: string, context: EffectContext): EffectContext {
  const { answers, timedOut, cancelled } = context;
  const others = answers.filter(({ waitKey }) => !isOf(layer, waitKey));
  if (others.length === answers.length) return context;
  // A deadline that has passed, or a cancel, is of a wait that came after all answers.
  const isOwn = !timedOut && !cancelled && isOf(layer, answers.at(-1)?.waitKey ?? "");
  return withMembers(context, { answers: others, waited: isOwn ? undefined : context.waited });
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
