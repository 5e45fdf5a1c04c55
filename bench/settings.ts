/** What the command line says about how much is measured. */
import type { StoreName } from "./compare.ts";

export interface Settings {
  stores: readonly StoreName[];
  /** A size, or a tenth of it with `--quick`. */
  scaled(size: number): number;
  /** Rounds, unless `--rounds` or `--quick` say otherwise. */
  rounds(usual: number): number;
}

export function settingsOf(options: { quick: boolean; rounds?: number; stores: readonly StoreName[] }): Settings {
  return {
    stores: options.stores,
    scaled: (size) => (options.quick ? Math.ceil(size / 10) : size),
    rounds: (usual) => options.rounds ?? (options.quick ? Math.min(usual, 2) : usual),
  };
}
