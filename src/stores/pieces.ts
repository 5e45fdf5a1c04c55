/** Cuts a stream of bytes into pieces of one size, for stores that keep them as rows. */

/**
 * The last piece may be smaller; of nothing there is none. All pieces share their memory: each is valid until the next is asked for.
 */
export async function* piecesOf(chunks: AsyncIterable<Uint8Array>, sizeBytes: number): AsyncGenerator<Uint8Array> {
  const piece = new Uint8Array(sizeBytes);
  let filled = 0;
  for await (const chunk of chunks) {
    for (let taken = 0; taken < chunk.length; ) {
      const part = chunk.subarray(taken, taken + sizeBytes - filled);
      piece.set(part, filled);
      filled += part.length;
      taken += part.length;
      if (filled < sizeBytes) continue;
      yield piece;
      filled = 0;
    }
  }
  if (filled > 0) yield piece.subarray(0, filled);
}
