/** Where calls are stored that belong to a transaction of the user's. */
import type { EffectDefinition } from "../kernel/effect.ts";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { Store } from "../kernel/store.ts";

/** The store itself, or what it does inside the transaction. @throws TRANSACTION_UNSUPPORTED, TRANSACTION_INVALID, INVALID_OPTION */
export function placeOf(store: Store, transaction: unknown, where: string): Pick<Store, "create" | "deliver" | "records"> {
  if (transaction === undefined) return store;
  if (!store.within) throw new AbstractRuntimeError("TRANSACTION_UNSUPPORTED", { store: store.name, what: where });
  return store.within(transaction);
}

/** @throws TRANSACTION_UNSUPPORTED when one of these effects needs what the store does not have. */
export function checkTransactional(store: Store, effects: Iterable<EffectDefinition>): void {
  if (store.transact) return;
  for (const { type, transactional } of effects)
    if (transactional) throw new AbstractRuntimeError("TRANSACTION_UNSUPPORTED", { store: store.name, what: `effect "${type}"` });
}
