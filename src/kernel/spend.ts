/** Amounts that are spent, and how they are counted: in whole units, dollars in thousand millionths, so that sums are exact. */
import { checkOptions, invalidOption } from "./errors.ts";

/** Amounts. As a budget: no more than these. */
export interface Spend {
  tokens?: number;
  /** Dollars. */
  usd?: number;
  /** Calls of models and tools. */
  calls?: number;
  /** Time within calls, in milliseconds; of calls at the same time, that of each. */
  wallMs?: number;
}

export const amountNames = ["tokens", "usd", "calls", "wallMs"] as const satisfies (keyof Spend)[];
/** So small that sums of many stay exact. */
const mostUnits = 1e15;

/** A budget as a start gives it. @throws INVALID_OPTION */
export function readBudget(given: unknown, where: string): Spend | undefined {
  if (given === undefined) return undefined;
  if (typeof given !== "object" || given === null || Array.isArray(given))
    refuse("budget", `${where}: budget is an object of limits, such as { tokens: 100000 }`);
  checkOptions(given as object, amountNames, `${where}, budget`);
  const limits: Spend = {};
  for (const name of amountNames) {
    const limit = (given as Spend)[name];
    if (limit === undefined) continue;
    if (unitsOf(name, limit) === undefined) refuse(`budget.${name}`, `${where}: ${problemOf(`budget.${name}`, name, limit)}`);
    limits[name] = limit;
  }
  if (Object.keys(limits).length === 0) refuse("budget", `${where}: budget limits nothing; it takes ${amountNames.join(", ")}`);
  return limits;
}

/** @throws INVALID_OPTION */
export function amountsOf(spend: Spend): Spend {
  checkOptions(spend, amountNames, "budget.reserve()");
  const amounts: Spend = {};
  for (const name of amountNames) {
    if (spend[name] === undefined) continue;
    const amount = unitsOf(name, spend[name]);
    if (amount === undefined) refuse(name, `budget.reserve(): ${problemOf(name, name, spend[name])}`);
    amounts[name] = amount;
  }
  return amounts;
}

function inUnits(name: keyof Spend, amount: number): number {
  return name === "usd" ? Math.round(amount * 1e9) : Math.ceil(amount);
}

/** Undefined for what is no amount. */
export function unitsOf(name: keyof Spend, amount: unknown): number | undefined {
  if (typeof amount !== "number" || !(amount >= 0)) return undefined;
  const count = inUnits(name, amount);
  return count <= mostUnits ? count : undefined;
}

/** The largest amount. */
export function mostOf(name: keyof Spend): number {
  return amountOf(name, mostUnits);
}

export function amountOf(name: keyof Spend, count: number): number {
  return name === "usd" ? count / 1e9 : count;
}

export function amountText(name: keyof Spend, amount: number): string {
  if (name === "usd") return `${amount} USD`;
  return `${amount} ${name === "wallMs" ? "ms of wall time" : name}`;
}

function problemOf(option: string, name: keyof Spend, given: unknown): string {
  return `${option} is a number from 0 to ${mostOf(name)}, not ${String(given)}`;
}

function refuse(option: string, problem: string): never {
  throw invalidOption(option, problem);
}
