/** What models ask of tools and get from them: the shapes that models, tools and the workers between them have in common. */
import type { Json, JsonObject } from "../index.ts";

/** A tool that a model asks for. */
export interface ToolCall {
  name: string;
  /** The model's own id of the call, which its result carries back. */
  callId: string;
  /** As the model gave them: not checked yet, and a text where what it gave is no JSON. */
  arguments: Json;
}

export interface ToolResult {
  name: string;
  callId: string;
  success: boolean;
  output: Json;
  error: { code?: string; message: string } | null;
  /** What was decided about the call, where somebody was asked. */
  approval?: ToolApproval;
}

export interface ToolApproval {
  decision: "allow" | "deny";
  /** Who decided, as whoever gave the answer said. */
  actorId?: string;
  reason?: string;
  /** Those that it was carried out with, where they were changed. */
  arguments?: Json;
}

/** A tool as models see it. */
export interface ToolDescription {
  name: string;
  description?: string;
  /** JSON Schema of its arguments. */
  parameters: JsonObject;
}
