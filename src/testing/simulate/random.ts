/**
 * Randomness by name: what a decision is called decides how it falls, not when it is made. So a schedule with one fault less meets
 * the same answers, durations and vars as before, which is what lets a failing schedule be made smaller.
 */
import { testIds } from "../ids.ts";

/** Random choices that a seed repeats. */
export interface SimulationRandom {
  /** A number in [0, 1). */
  next(): number;
  /** A whole number from `least` to `most`, both included. */
  int(least: number, most: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  /** One of `list`, which is not empty. */
  pick<T>(list: readonly T[]): T;
}

/** The choices of one decision: the same seed and names give the same numbers in the same order. */
export function randomOf(seed: number, ...names: readonly (string | number)[]): SimulationRandom {
  const { random: next } = testIds(seedOf(seed, ...names));
  const int = (least: number, most: number): number => least + Math.floor(next() * (most - least + 1));
  return { next, int, chance: (probability) => next() < probability, pick: (list) => list[int(0, list.length - 1)] as never };
}

/** A seed of 32 bits made of others: FNV-1a, mixed once more, since neighbours would otherwise begin alike. */
export function seedOf(seed: number, ...names: readonly (string | number)[]): number {
  let mixed = 0x811c9dc5 ^ seed;
  for (const name of names) {
    const text = String(name);
    for (let i = 0; i < text.length; i++) mixed = Math.imul(mixed ^ text.charCodeAt(i), 0x01000193);
    mixed = Math.imul(mixed ^ 0x1f, 0x01000193);
  }
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  return (mixed ^ (mixed >>> 13)) | 0;
}
