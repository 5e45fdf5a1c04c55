/**
 * What a run and everything that it starts may spend. Counters in the store say what is spent, so that all who share a budget see one
 * number, in whatever process they are.
 *
 * B1. What a call may cost is reserved before it, in the store, all or none: together, those who share a budget never reserve more than
 *     is left of it. What it did cost replaces that in the commit which records the attempt's outcome.
 * B2. What was reserved and never settled stays counted: it may have been spent. So it is for an attempt that was cut off; of time, all
 *     until its end is counted, where this process sees that.
 * B3. Amounts are counted in whole units, dollars in thousand millionths, so that sums are exact.
 * B4. An answer that raises a budget does so in the commit that takes it, and so exactly once. A counter holds what was used less what it
 *     was raised by; `raised.NAME` holds that alone, for people.
 */
import type { Clock } from "./clock.ts";
import { definite, permanent } from "./effect.ts";
import { type WaitRequest, wait } from "./wait-request.ts";
import { AbstractRuntimeError, isError } from "./errors.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import type { Mail } from "./message.ts";
import type { RecordDraft } from "./record.ts";
import type { RunState, WaitState } from "./run.ts";
import { amountNames, amountOf, amountsOf, amountText, mostOf, type Spend, unitsOf } from "./spend.ts";
import type { Store } from "./store.ts";
import type { CounterChange } from "./transition.ts";

/** A budget, and the run that it was given to: it holds for that run and for all that it starts, directly or through its children. */
export interface ScopedBudget {
  scope: string;
  limits: Spend;
}

/** What a handler does with the budgets of its run. */
export interface Budget {
  /** What the budgets of the run limit, its own and those of runs that started it. Nothing else is counted. */
  readonly limits: readonly (keyof Spend)[];
  /**
   * Reserves what a call may cost, in addition to what this attempt has reserved before. Where there is not so much left, nothing is
   * reserved, and the answer says what is missing: return `overBudget(it)`. Amounts that no budget limits are not counted.
   *
   * @throws INVALID_OPTION for what is no amount, and in a transactional effect; errors of the store. All are definite: nothing was called yet.
   */
  reserve(estimate: Spend): Promise<OverBudget | undefined>;
  /**
   * Says what this attempt did cost, in place of all that it has reserved. Stands with the record of its outcome. What is left out, or is
   * no amount, stays as reserved. A second call replaces the first.
   */
  settle(actual: Spend): void;
}

/** Why there was no room. */
export interface OverBudget {
  /** The run that the budget was given to. */
  scope: string;
  name: keyof Spend;
  /** Spent or reserved so far, of so much. */
  used: number;
  limit: number;
  /** What was to be reserved. */
  needed: number;
}

/** What is used of one limit. */
export interface BudgetUse {
  scope: string;
  name: keyof Spend;
  used: number;
  /** With what it was raised by. */
  limit: number;
  raised: number;
}

/** The budgets of a run: its own first, then those of the runs above it. */
export function budgetsOf(scope: string, own: Spend | undefined, above: readonly ScopedBudget[] = []): ScopedBudget[] {
  return own ? [{ scope, limits: own }, ...above] : [...above];
}

/** The budgets of a fork: what held for its origin holds for it alone, and nothing of it is spent. */
export function forkedBudgets(scope: string, budgets: readonly ScopedBudget[]): ScopedBudget[] {
  const limits: Spend = {};
  for (const budget of budgets)
    for (const name of amountNames) {
      const limit = budget.limits[name];
      if (limit !== undefined) limits[name] = Math.min(limit, limits[name] ?? limit);
    }
  return [{ scope, limits }];
}

/** Of a run without a budget: costs nothing. */
export const noBudget: Budget = Object.freeze({
  limits: [],
  reserve: async () => undefined,
  settle: () => undefined,
});

/** The budgets of a run, as one attempt spends them. */
export class AttemptBudget implements Budget {
  readonly limits: readonly (keyof Spend)[];
  readonly #budgets: readonly ScopedBudget[];
  readonly #store: Pick<Store, "reserve" | "counters">;
  readonly #clock: Clock;
  readonly #checkAlive: () => void;
  readonly #reserved: Spend = {};
  #actual: Spend = {};
  /** When time was reserved first. */
  #since: number | undefined;

  /** @param checkAlive Throws once the attempt has ended: what it reserves then would never be settled. */
  constructor(
    budgets: readonly ScopedBudget[],
    store: Pick<Store, "reserve" | "counters">,
    clock: Clock,
    checkAlive: () => void,
  ) {
    this.limits = amountNames.filter((name) => budgets.some(({ limits }) => limits[name] !== undefined));
    this.#budgets = budgets;
    this.#store = store;
    this.#clock = clock;
    this.#checkAlive = checkAlive;
  }

  /** A field, so that it may be taken apart from its context, as the next. */
  readonly reserve = async (estimate: Spend): Promise<OverBudget | undefined> => {
    this.#checkAlive();
    try {
      const amounts = amountsOf(estimate);
      const changes = this.#budgets.flatMap(({ scope, limits }) =>
        amountNames.flatMap((name): CounterChange[] => {
          const limit = limits[name];
          const add = amounts[name] ?? 0;
          return limit === undefined || add === 0 ? [] : [{ runId: scope, name, add, limit: unitsOf(name, limit) as number }];
        }),
      );
      if (changes.length === 0) return undefined;
      const refused = await this.#store.reserve(changes);
      if (refused) return await this.#over(refused);
      for (const name of amountNames) if (amounts[name]) this.#reserved[name] = (this.#reserved[name] ?? 0) + amounts[name];
      if (amounts.wallMs) this.#since ??= this.#clock.now();
      return undefined;
    } catch (error) {
      // Nothing was called yet: the effect has certainly not happened.
      throw isError(error, "INVALID_OPTION") ? permanent(error) : definite(error);
    }
  };

  readonly settle = (actual: Spend): void => {
    this.#actual = { ...actual };
  };

  /** What makes the counters say what was spent (B1). */
  changes(): CounterChange[] {
    // A call that hung until its attempt was given up has settled nothing, and what it took is known.
    if (this.#since !== undefined && unitsOf("wallMs", this.#actual.wallMs) === undefined)
      this.#actual.wallMs = Math.max(this.#reserved.wallMs ?? 0, this.#clock.now() - this.#since);
    return this.#budgets.flatMap(({ scope, limits }) =>
      amountNames.flatMap((name): CounterChange[] => {
        const actual = limits[name] === undefined ? undefined : unitsOf(name, this.#actual[name]);
        const add = actual === undefined ? 0 : actual - (this.#reserved[name] ?? 0);
        return add === 0 ? [] : [{ runId: scope, name, add }];
      }),
    );
  }

  async #over({ runId: scope, name: counter, add }: CounterChange): Promise<OverBudget> {
    const name = counter as keyof Spend;
    const uses = usesOf(this.#budgets, scope, await this.#store.counters(scope));
    const { used, limit } = uses.find((use) => use.name === name) as BudgetUse;
    return { scope, name, used, limit, needed: amountOf(name, add) };
  }
}

/** What is used of the budget of one run. */
export function usesOf(budgets: readonly ScopedBudget[], scope: string, counters: Readonly<Record<string, number>>): BudgetUse[] {
  const limits = budgets.find((budget) => budget.scope === scope)?.limits ?? {};
  return amountNames.flatMap((name) => {
    const limit = limits[name];
    if (limit === undefined) return [];
    const raised = counters[`raised.${name}`] ?? 0;
    const used = (counters[name] ?? 0) + raised;
    return [
      {
        scope,
        name,
        used: amountOf(name, used),
        limit: amountOf(name, (unitsOf(name, limit) as number) + raised),
        raised: amountOf(name, raised),
      },
    ];
  });
}

// ---- Over budget ---------------------------------------------------------------------------------------------------

/**
 * For handlers to return: the effect waits for a person, who raises the budget or stops. The answer `{ raise: { tokens: 5000 } }` allows so
 * much more to all who share the budget, and the handler is called again as if it had not asked; `{ stop: true }` fails the effect with
 * BUDGET_EXCEEDED. Now and then the handler is called again without an answer: there may be room by now.
 */
export function overBudget(over: OverBudget): WaitRequest {
  const { scope, name, used, limit, needed } = over;
  const more =
    needed > limit
      ? `needs ${amountText(name, needed)}, more than all of it`
      : `may need ${amountText(name, needed)}, more than is left`;
  const asked = wait({
    reason: "user",
    again: true,
    prompt:
      `The budget of run ${scope} is ${amountText(name, limit)}, of which ${amountText(name, used)} are used, and the next call ${more}. ` +
      `Answer {"raise":{"${name}":${raiseFor(over)}}} to allow so much more to all who share it, or {"stop":true} to stop here.`,
    schema: answerSchema,
    details: { scope, name, used, limit, needed },
    onTimeout: "again",
  });
  return { ...asked, budget: scope } as WaitRequest;
}

const answerSchema: JsonObject = {
  type: "object",
  properties: {
    raise: {
      type: "object",
      properties: Object.fromEntries(amountNames.map((name) => [name, { type: "number", minimum: 0, maximum: mostOf(name) }])),
      additionalProperties: false,
    },
    stop: { const: true },
    reason: { type: "string" },
  },
  anyOf: [{ required: ["raise"] }, { required: ["stop"] }],
  additionalProperties: false,
};

/** What is missing. */
function raiseFor({ name, used, limit, needed }: OverBudget): number {
  const [usedUnits = 0, limitUnits = 0, neededUnits = 0] = [used, limit, needed].map((amount) => unitsOf(name, amount));
  // There may be room by now.
  return amountOf(name, Math.max(1, usedUnits + neededUnits - limitUnits));
}

const firstLookMs = 5_000;
const longestLookMs = 15 * 60_000;

/** When an effect that waits for a budget looks again for the `n`-th time: as long as it has waited already, about. */
export function lookAgainMs(n: number): number {
  return Math.min(firstLookMs * 2 ** Math.min(n, 30), longestLookMs);
}

/** What tells the key of a wait for a budget from that of a wait for another one, so that no answer raises what it was not asked for. */
export function questionOf({ budgets = [] }: RunState, budget: string, details: unknown): string {
  const { name } = (details ?? {}) as Partial<OverBudget>;
  return `:${name}.${budgets.findIndex(({ scope }) => scope === budget)}`;
}

/** The failure that an answer means, where it stops what waits for a budget. */
export function stopped({ budget, details }: WaitState, answer: JsonObject): AbstractRuntimeError | undefined {
  if (budget === undefined || answer.stop !== true) return undefined;
  const { name, used, limit } = details as unknown as OverBudget;
  return new AbstractRuntimeError("BUDGET_EXCEEDED", {
    runId: budget,
    problem: `${amountText(name, used)} of ${amountText(name, limit)} are used`,
    ...(typeof answer.reason === "string" ? { reason: answer.reason } : {}),
  });
}

/** What taking a message adds to the counters: a raise (B4). What is no amount raises nothing. */
export function raisedBy(state: RunState, { payload }: Mail, drafts: readonly RecordDraft[]): CounterChange[] {
  const [draft] = drafts;
  if (draft?.kind !== "delivered" || draft.data.outcome !== "again" || draft.effectId === undefined) return [];
  const scope = state.open.get(draft.effectId)?.wait?.budget;
  const raise = isObject(payload) ? payload.raise : undefined;
  const limits = state.budgets?.find((budget) => budget.scope === scope)?.limits;
  if (scope === undefined || limits === undefined || !isObject(raise as Json)) return [];
  return amountNames.flatMap((name): CounterChange[] => {
    const add = limits[name] === undefined ? undefined : unitsOf(name, (raise as JsonObject)[name]);
    if (!add) return [];
    return [
      { runId: scope, name, add: -add },
      { runId: scope, name: `raised.${name}`, add },
    ];
  });
}
