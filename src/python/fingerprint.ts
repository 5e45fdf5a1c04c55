/** Who acts: an id derived from what is known of a person, an agent or a service. The Python package derives the same ids. */
import { checkOptions, invalidOption } from "../kernel/errors.ts";
import { sha256 } from "../kernel/record.ts";
import { canonicalJson } from "./text.ts";

export interface ActorOptions {
  displayName?: string | null;
  /** JSON. Numbers of `lossless-json` keep their spelling; a plain 1.0 cannot be told from 1, and counts as 1. */
  metadata?: Record<string, unknown> | null;
}

/** An actor. `actorId` is what runs and records are given. */
export class ActorFingerprint {
  readonly actorId: string;
  /** Meant to be `agent`, `human` or `service`. */
  readonly kind: string;
  readonly displayName: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;

  private constructor(actorId: string, kind: string, displayName: string | null, metadata: Record<string, unknown>) {
    this.actorId = actorId;
    this.kind = kind;
    this.displayName = displayName;
    this.metadata = metadata;
  }

  /** The same kind, name and metadata give the same id, whatever the order of keys. @throws INVALID_OPTION, NOT_JSON, JSON_TOO_DEEP */
  static fromMetadata(kind: string, options: ActorOptions = {}): ActorFingerprint {
    if (typeof kind !== "string") throw invalidOption("kind", "kind is a text such as human");
    // A name that is not known would silently be left out, and the actor be another one.
    checkOptions(options, ["displayName", "metadata"], "ActorFingerprint.fromMetadata()");
    const { displayName, metadata } = options;
    const name = displayName ?? null;
    const text = canonicalJson({ kind, display_name: name, metadata: metadata ?? {} });
    return new ActorFingerprint(`ar_${sha256(text).slice(0, 24)}`, kind, name, metadata ?? {});
  }

  /** As the Python package writes it. */
  toDict(): { actor_id: string; kind: string; display_name: string | null; metadata: Readonly<Record<string, unknown>> } {
    return { actor_id: this.actorId, kind: this.kind, display_name: this.displayName, metadata: this.metadata };
  }
}
