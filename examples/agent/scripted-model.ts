// A language model in this process that says what a script says: for programs and tests that need no key and cost nothing.
import { type LanguageModel, simulateReadableStream } from "ai";

type Model = Extract<LanguageModel, { specificationVersion: "v4" }>;
type Prompt = Parameters<Model["doStream"]>[0]["prompt"];
type Part = Awaited<ReturnType<Model["doStream"]>>["stream"] extends ReadableStream<infer P> ? P : never;

/** What has been said so far, as far as scripts look at it. */
export interface Said {
  system: string;
  /** What the user said last. */
  user: string;
  /** How often the model has had its turn since then. */
  turns: number;
  /** What tools answered since then, each as text. */
  results: string[];
}

/** What the model says next. */
export interface Turn {
  text?: string;
  calls?: { name: string; arguments: object }[];
}

export type Script = (said: Said) => Turn;

export function scriptedModel(script: Script, { msPerWord = 0 }: { msPerWord?: number } = {}): Model {
  const answer = ({ prompt }: { prompt: Prompt }) => {
    const { text = "", calls = [] } = script(saidIn(prompt));
    const words = text.match(/\s*\S+/g) ?? [];
    return {
      words,
      content: [
        ...(text === "" ? [] : [{ type: "text" as const, text }]),
        ...calls.map(({ name, arguments: input }, i) => ({
          type: "tool-call" as const,
          // As real ones are, ids are new in every turn.
          toolCallId: `call-${prompt.length}-${i + 1}`,
          toolName: name,
          input: JSON.stringify(input),
        })),
      ],
      finishReason: { unified: calls.length > 0 ? ("tool-calls" as const) : ("stop" as const), raw: undefined },
      usage: {
        inputTokens: { total: prompt.length * 20, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
        outputTokens: { total: words.length + calls.length * 10, text: undefined, reasoning: undefined },
      },
    };
  };
  return {
    specificationVersion: "v4",
    provider: "scripted",
    modelId: "scripted",
    supportedUrls: {},
    doGenerate: async (options) => {
      const { content, finishReason, usage } = answer(options);
      return { content, finishReason, usage, warnings: [] };
    },
    doStream: async (options) => {
      const { words, content, finishReason, usage } = answer(options);
      const calls = content.filter(({ type }) => type === "tool-call");
      const chunks: Part[] = [
        { type: "stream-start", warnings: [] },
        ...(words.length === 0 ? [] : [{ type: "text-start" as const, id: "text" }]),
        ...words.map((delta) => ({ type: "text-delta" as const, id: "text", delta })),
        ...(words.length === 0 ? [] : [{ type: "text-end" as const, id: "text" }]),
        ...(calls as Part[]),
        { type: "finish", finishReason, usage },
      ];
      const delay = msPerWord === 0 ? null : msPerWord;
      return { stream: simulateReadableStream({ chunks, initialDelayInMs: delay, chunkDelayInMs: delay }) };
    },
  };
}

function saidIn(prompt: Prompt): Said {
  const said: Said = { system: "", user: "", turns: 0, results: [] };
  for (const message of prompt) {
    if (message.role === "system") said.system = message.content;
    else if (message.role === "assistant") said.turns += 1;
    else if (message.role === "user") {
      const user = message.content.map((part) => (part.type === "text" ? part.text : "")).join("");
      Object.assign(said, { user, turns: 0, results: [] });
    } else {
      for (const part of message.content) if (part.type === "tool-result") said.results.push(textOf(part.output));
    }
  }
  return said;
}

function textOf(output: { type: string; value?: unknown }): string {
  return typeof output.value === "string" ? output.value : JSON.stringify(output.value ?? output);
}
