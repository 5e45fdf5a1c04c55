/** Pure: a policy, the attempt that failed and a random number give the delay before the next one, or the end. */
import { checkOptions, invalidOption } from "./errors.ts";

export interface Backoff {
  /** Delay after the first failure, in milliseconds. */
  initialMs: number;
  /** Each further delay is this many times the one before. */
  factor: number;
  /** No delay is longer, in milliseconds. */
  maxMs: number;
  /** Share of the delay that is random: 0.2 gives 80 % to 120 % of it. */
  jitter: number;
}

export interface Policy {
  /** Attempts in all, the first included. */
  maxAttempts: number;
  backoff: Backoff;
  /** Longest time for one attempt to settle or report progress, in milliseconds. */
  timeoutMs: number;
}

export interface PolicyOptions {
  maxAttempts?: number;
  backoff?: Partial<Backoff>;
  timeoutMs?: number;
}

/** Three attempts, 200 ms then 400 ms apart with 20 % jitter, ten minutes each. */
export const defaultPolicy: Policy = {
  maxAttempts: 3,
  backoff: { initialMs: 200, factor: 2, maxMs: 30_000, jitter: 0.2 },
  timeoutMs: 600_000,
};

/** Whatever somebody asks for: moments beyond are none that a store can keep. */
const longestMs = 365 * 24 * 3_600_000;

/** A complete policy from options. @throws INVALID_OPTION */
export function readPolicy(options: PolicyOptions = {}, where = "policy"): Policy {
  checkOptions(options, ["maxAttempts", "backoff", "timeoutMs"], where);
  checkOptions(options.backoff ?? {}, ["initialMs", "factor", "maxMs", "jitter"], `${where}.backoff`);
  const policy: Policy = {
    maxAttempts: options.maxAttempts ?? defaultPolicy.maxAttempts,
    backoff: { ...defaultPolicy.backoff, ...options.backoff },
    timeoutMs: options.timeoutMs ?? defaultPolicy.timeoutMs,
  };
  const { initialMs, factor, maxMs, jitter } = policy.backoff;
  demand(Number.isInteger(policy.maxAttempts) && policy.maxAttempts >= 1, where, "maxAttempts", "a whole number from 1");
  demand(policy.timeoutMs > 0, where, "timeoutMs", "a number of milliseconds above 0");
  demand(initialMs >= 0, where, "backoff.initialMs", "a number of milliseconds from 0");
  demand(maxMs >= 0, where, "backoff.maxMs", "a number of milliseconds from 0");
  demand(factor >= 1, where, "backoff.factor", "a number from 1");
  demand(jitter >= 0 && jitter <= 1, where, "backoff.jitter", "a number from 0 to 1");
  return policy;
}

/**
 * Milliseconds until the next attempt, or undefined when `attempt` was the last.
 *
 * @param attempt The attempt that ended, from 1.
 * @param random In [0, 1).
 * @param leastMs What the other side asked for, which may be more than the policy's longest delay; a year at most.
 */
export function retryDelay(policy: Policy, attempt: number, random: number, leastMs = 0): number | undefined {
  if (attempt >= policy.maxAttempts) return undefined;
  const { initialMs, factor, maxMs, jitter } = policy.backoff;
  // A factor grown beyond all numbers times 0 ms would be no number.
  const delay = initialMs === 0 ? 0 : Math.min(maxMs, longestMs, initialMs * factor ** (attempt - 1));
  const jittered = Math.round(Math.min(maxMs, delay * (1 + jitter * (2 * random - 1))));
  return Math.min(longestMs, Math.max(Math.ceil(leastMs), jittered));
}

function demand(holds: boolean, where: string, option: string, what: string): void {
  if (!holds) throw invalidOption(option, `${where}.${option} must be ${what}`);
}
