/** When a state is written as a whole, and which older ones stay (L4). */

export interface Checkpoint {
  seq: number;
  /** 1, 2, 3 ... within the run; decides which old ones are kept. 0: of the one that stands for what was archived. */
  ordinal: number;
  text: string;
}

/** The smallest checkpoint interval, in bytes of records. */
const leastInterval = 65_536;

/** Whether a checkpoint is due: a state of size S is written again only after max(S, 64 KiB) of records (L4). */
export function checkpointDue(bytesSince: number, lastSize: number): boolean {
  return bytesSince >= Math.max(lastSize, leastInterval);
}

/**
 * Which older checkpoints to drop when number `ordinal` is written. One whose ordinal is divisible by 2^k, and by no higher power,
 * stays for 2^(k+1) further ones: one or two are kept of each age, so that looking far back stays cheap.
 */
export function checkpointsToDrop(ordinal: number): number[] {
  const drop: number[] = [];
  for (let k = 0; 2 ** (k + 1) < ordinal; k++) {
    const old = ordinal - 2 ** (k + 1);
    if (old % 2 ** k === 0 && (old / 2 ** k) % 2 === 1) drop.push(old);
  }
  return drop;
}
