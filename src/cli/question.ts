/** Which of a run's waits an answer is for, and what a typed answer means. */
import { parseJson, type Run } from "../index.ts";
import type { Wait } from "./explain.ts";

/** The waits that can be answered: a person's questions, and events and jobs only where there is none. */
export function questionsOf(run: Run): Wait[] {
  const asked = run.waits.filter(({ reason }) => reason === "user");
  return asked.length > 0 ? asked : run.waits.filter(({ reason }) => reason === "event" || reason === "job");
}

/** A JSON object is meant as one, unless it is a choice; everything else is text. */
export function payloadOf(answer: string, wait: Wait | undefined): unknown {
  if (wait?.choices?.includes(answer)) return answer;
  const value = parsed(answer);
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : answer;
}

function parsed(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return undefined; // Not JSON, so it is text.
  }
}
