// A tool that knows a few things of Lyon, and what the scripted model says as a planner, as a researcher and as a writer.
import { localTools } from "abstractruntime/tools";
import { z } from "zod";
import type { Script } from "./scripted-model.ts";

const known: Record<string, string> = {
  trains: "Paris to Lyon: 7:00, 8:00 and 9:30, two hours each.",
  weather: "Saturday: sun in the morning, rain from three o'clock on.",
  museums: "The Museum of Fine Arts opens at ten and closes at six.",
};

export const travelTools = localTools({
  look_up: {
    description: `Looks a topic up in the guide. Topics: ${Object.keys(known).join(", ")}.`,
    input: z.object({ topic: z.string() }),
    speculative: true,
    run: ({ topic }) => ({ topic, text: known[topic] ?? "Nothing is known of that." }),
  },
});

export const travelScript: Script = ({ system, user, turns, results }) => {
  if (/^You plan/.test(system))
    return { text: JSON.stringify({ questions: Object.keys(known).map((topic) => `What of the ${topic}?`) }) };
  if (/^You write/.test(system)) return { text: "Take the train at 8:00, see the old town, and go to the museum when it rains." };
  const topic = /(trains|weather|museums)/.exec(user)?.[1] ?? "weather";
  if (turns === 0) return { calls: [{ name: "look_up", arguments: { topic } }] };
  return { text: /"text":\s*"([^"]*)"/.exec(results[0] ?? "")?.[1] ?? "I do not know." };
};
