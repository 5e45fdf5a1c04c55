/** The body of a request or an answer, of which no more is read than may be. Undefined when there is more. */
export async function boundedBytes({ body }: Pick<Request, "body">, mostBytes: number): Promise<Buffer | undefined> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of body ?? []) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > mostBytes) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
