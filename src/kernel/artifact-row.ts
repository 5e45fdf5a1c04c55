/** What a store keeps of artifacts, and where their bytes are. */

/** What is known of a blob. Its id is the SHA-256 of its bytes, 64 hex digits, which is what makes two puts of the same bytes one. */
export interface ArtifactRow {
  id: string;
  sizeBytes: number;
  contentType: string;
  tags: Record<string, string>;
  createdAt: number;
  /** The key of its bytes in the blob store. Never used for other bytes, so that what is swept and what is put again cannot meet. */
  blob: string;
}

export interface ArtifactQuery {
  runId?: string;
  /** All of these. */
  tags?: Readonly<Record<string, string>>;
  /** Those whose bytes stand under one of these keys. */
  blobs?: readonly string[];
  limit?: number;
  cursor?: string;
}

/** Bytes by key. Keys are made by the caller and used once. */
export interface BlobStore {
  readonly name: string;
  /** Durable when it resolves. A write that failed leaves nothing that can be read; what it left otherwise is listed. */
  write(key: string, chunks: AsyncIterable<Uint8Array>): Promise<void>;
  /**
   * The bytes `[start, end)`. A blob that is deleted meanwhile rejects; it never ends early.
   *
   * @throws ARTIFACT_MISSING
   */
  read(key: string, range?: { start?: number; end?: number }): AsyncIterable<Uint8Array>;
  /** A second call does nothing. */
  delete(key: string): Promise<void>;
  /** Every key, also of writes that are under way or did not finish, and when it was last written to. */
  list(): AsyncIterable<{ key: string; at: number }>;
}
