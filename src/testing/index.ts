/** What tests of workflows, stores and runtimes need. Nothing here depends on a test framework. */
export { type PendingTimer, type TestClock, testClock } from "./clock.ts";
export { type Fault, type FaultyStore, faultyStore, type When } from "./faulty-store.ts";
export { testIds } from "./ids.ts";
export { type OpenedStore, type OpenStore, type Suite, storeContract } from "./store-contract.ts";
export type { StoreMethod } from "./wrap-store.ts";
export { describeFault, simulate } from "./simulate/index.ts";
export type {
  FaultRates,
  HandlerCall,
  InvariantName,
  SeedReport,
  SimulatedCode,
  SimulatedFault,
  SimulatedWait,
  SimulateOptions,
  SimulationEnd,
  SimulationFailure,
  SimulationInvariant,
  SimulationRandom,
  SimulationReport,
  StartWith,
} from "./simulate/index.ts";
