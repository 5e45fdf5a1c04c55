/** A call within the budgets of its run: reserved before, settled after. */
import { type EffectContext, overBudget, type Spend, type WaitRequest } from "../index.ts";

/**
 * Calls, where the budgets of the run have room for it. Where they have not, the answer is a wait for a person, to be returned by the
 * handler; nothing was called then.
 *
 * What takes up something begun before (an answer came, a job elsewhere is looked after, a cancel) is the same call: only its time counts
 * again. A call that threw a definite error has cost nothing but time; after any other error, what was reserved stays counted.
 *
 * @param estimate What it may cost, time apart: that is measured.
 * @param actualOf What it did cost. What is left out stays as estimated. Default: as estimated.
 */
export async function spend<T>(
  context: Pick<EffectContext, "budget" | "clock" | "answers" | "waited" | "timedOut" | "cancelled">,
  estimate: Spend,
  call: () => T | PromiseLike<T>,
  actualOf: (result: T) => Spend = () => ({}),
): Promise<T | WaitRequest> {
  const { budget, clock, answers, waited, timedOut, cancelled } = context;
  if (budget.limits.length === 0) return call();
  const goesOn = answers.length > 0 || waited !== undefined || timedOut || cancelled;
  if (!goesOn) {
    // Of a budget of time, some must be left.
    const over = await budget.reserve({ wallMs: 1, ...estimate });
    if (over) return overBudget(over);
  }
  const begunAt = clock.now();
  const wallMs = (): number => Math.max(0, clock.now() - begunAt);
  try {
    const result = await call();
    budget.settle({ ...(goesOn ? {} : actualOf(result)), wallMs: wallMs() });
    return result;
  } catch (error) {
    const happened = (error as { definite?: unknown } | null)?.definite !== true;
    budget.settle({ ...(happened || goesOn ? {} : { tokens: 0, usd: 0 }), wallMs: wallMs() });
    throw error;
  }
}
