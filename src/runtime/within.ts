/** What a promise gives, or undefined when it takes longer: whatever is asked then goes on unheard. Holds the process open meanwhile. */
import type { Clock, Timer } from "../kernel/clock.ts";

export async function within<T>(clock: Clock, ms: number, promise: Promise<T>): Promise<T | undefined> {
  let deadline: Timer | undefined;
  const late = new Promise<undefined>((resolve) => {
    deadline = clock.setTimer(() => resolve(undefined), ms, true);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    deadline?.cancel();
  }
}
