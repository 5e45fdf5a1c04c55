/**
 * What a server asks a person while it carries a call out, as a durable wait. When it is answered the call is made again, with the answer
 * and with the state that the server gave along with its question: both come out of the record, so any process can do it.
 */
import {
  AbstractRuntimeError,
  type EffectContext,
  type Json,
  type JsonObject,
  toJson,
  wait,
  type WaitRequest,
} from "../../index.ts";
import type { ToolCall } from "../tool-call.ts";
import { largestQuestion } from "./limits.ts";
import type { Secrets } from "./secrets.ts";

/** An `elicitation/create` of the protocol: a form that a JSON Schema describes, or a page to visit. */
export interface Elicitation {
  mode?: string;
  message: string;
  requestedSchema?: Json;
  url?: string;
}

/** The protocol's answer to it. */
export interface ElicitationAnswer {
  action: "accept" | "decline" | "cancel";
  content?: JsonObject;
}

export interface Question {
  /** By the server's own names. */
  requests: Record<string, Elicitation>;
  /** The server's: it goes back as it came. */
  requestState?: string;
  /** It is a page to visit before the call is made anew, and the server hears of no answer. */
  isErrand?: true;
}

/** A question and its answer, where the server asks again for what it was told in an earlier call. */
export interface Told {
  asked: Elicitation;
  answer: ElicitationAnswer;
}

/** What the call is made again with. */
export interface Again extends Question {
  answers: Record<string, ElicitationAnswer>;
  told: Told[];
}

/** What is needed for the next call stands in the wait's details. */
interface Details {
  mcp: { server: string; toolCall: ToolCall; told: Told[] } & Question;
}

/** The answer to the question that `questionWait` put, or undefined when this is the first call. */
export function answerOf({ waited, answers, timedOut }: EffectContext): Again | undefined {
  const { mcp } = (waited ?? {}) as Partial<Details>;
  const answer = answers.at(-1)?.payload;
  if (mcp === undefined || answer === undefined || timedOut) return undefined;
  const { requests, requestState, isErrand } = mcp;
  const keys = Object.keys(requests);
  const given = (keys.length === 1 ? { [keys[0] as string]: answer } : answer) as unknown as Record<string, ElicitationAnswer>;
  const told = keys.map((key) => ({ asked: requests[key], answer: given[key] }) as Told);
  return {
    requests,
    answers: given,
    told: [...mcp.told, ...told],
    ...(requestState === undefined ? {} : { requestState }),
    ...(isErrand ? { isErrand } : {}),
  };
}

/** @throws MCP_CALL_FAILED when what it asks for cannot be put to a person. */
export function questionWait(server: string, call: ToolCall, question: Question, told: Told[], secrets: Secrets): WaitRequest {
  const { requestState, isErrand } = question;
  const requests = secrets.scrubJson(question.requests as unknown as JsonObject) as unknown as Record<string, Elicitation>;
  const asked = Object.entries(requests);
  const refuse = (problem: string): never => {
    throw new AbstractRuntimeError("MCP_CALL_FAILED", { server, tool: call.name, problem });
  };
  const size = JSON.stringify(question).length;
  if (size > largestQuestion) refuse(`it asks for input with ${size} characters, and ${largestQuestion} are allowed`);
  // A reference to an artifact that does not exist would fail the run.
  if (JSON.stringify(requests).includes('"$artifact"')) refuse("its question names an artifact");
  // Cutting it out would make the state useless, and leaving it in would record it.
  if (requestState !== undefined && secrets.scrub(requestState) !== requestState)
    refuse("the state that it gave with its question holds a secret of its own");
  const [only] = asked;
  const texts = asked.map(([, { message, url }]) => (url === undefined ? message : `${message}\n${url}`));
  const properties = Object.fromEntries(asked.map(([key, request]) => [key, answerSchema(request)]));
  const details: Details = {
    mcp: {
      server,
      toolCall: call,
      requests,
      told,
      ...(requestState === undefined ? {} : { requestState }),
      ...(isErrand ? { isErrand } : {}),
    },
  };
  return wait({
    reason: "user",
    again: true,
    details: recordable(details, refuse),
    // Whoever answers must know who asks.
    prompt: `MCP server ${JSON.stringify(server)} asks: ${texts.join("\n\n")}`,
    schema:
      asked.length === 1 && only !== undefined
        ? answerSchema(only[1])
        : { type: "object", required: Object.keys(requests), properties, additionalProperties: false },
  });
}

function recordable(details: Details, refuse: (problem: string) => never): Json {
  try {
    return toJson(details, "details");
  } catch (error) {
    return refuse(`what it asks for cannot be recorded: ${(error as Error).message}`);
  }
}

/** Of the form, only what an accepting person fills in is looked at. */
function answerSchema({ requestedSchema }: Elicitation): JsonObject {
  const answer = (action: Json, content: Json, required: string[]): JsonObject => ({
    type: "object",
    required: ["action", ...required],
    properties: { action, content },
    additionalProperties: false,
  });
  if (requestedSchema === undefined) return answer({ enum: ["accept", "decline", "cancel"] }, { type: "object" }, []);
  return {
    anyOf: [
      answer({ enum: ["decline", "cancel"] }, { type: "object" }, []),
      answer({ const: "accept" }, requestedSchema, ["content"]),
    ],
  };
}
