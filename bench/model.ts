/** Model calls: what a step with one costs beside the call itself, and whether a long chat stays cheap in time and on disk. */
import { complete, createRuntime, defineWorkflow, type EffectContext, goto, type StepPlan, waitEvent } from "abstractruntime";
import {
  assistantMessage,
  type LanguageModel,
  llmCall,
  llmEffect,
  type LlmResult,
  localLlm,
  type Message,
} from "abstractruntime/llm";
import { sqliteStore } from "abstractruntime/sqlite";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileIn } from "./compare.ts";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { bytesIn, newPlace, remove } from "./place.ts";
import type { Settings } from "./settings.ts";
import { cpuMs } from "./trace.ts";

const turns = 200;
const kilobyte = 1_024;
const partsOfAnswer = 20;

export async function model(settings: Settings): Promise<Figure[]> {
  if (!settings.stores.includes("sqlite")) return [];
  const steps: Steps[] = [];
  const chats: Chat[] = [];
  const talks: Chat[] = [];
  // The first round compiles what the others run, and is not counted.
  for (let round = 0; round <= settings.rounds(5); round++) {
    steps.push(await oneSize(settings.scaled(300)));
    chats.push(await chat(false));
    talks.push(await chat(true));
  }
  for (const list of [steps, chats, talks]) list.shift();
  const overheads = steps.map(({ ours, bare }) => ours - bare);
  return [
    {
      name: "model step over the bare call, 20 KB of messages",
      on: "sqlite",
      unit: "ms",
      ours: median(overheads),
      spread: spreadOf(overheads),
      asked: [atMost(median(overheads), 2)],
      note: `medians of steps: ${median(steps.map(({ ours }) => ours)).toFixed(2)} ms, and ${median(steps.map(({ bare }) => bare)).toFixed(3)} ms of it the call; ${median(steps.map(({ cpu }) => cpu)).toFixed(2)} ms of processor time. The model answers at once with ${partsOfAnswer} parts, which are streamed`,
    },
    ...chatFigures(
      `chat of ${turns} turns of 2 KB`,
      chats,
      "a turn is from one message of the user's to the next; the run's own node makes them",
    ),
    ...chatFigures(
      `as well, each after an event`,
      talks,
      "a turn is from sending the event to the next wait: the run is parked between them",
    ),
  ];
}

function chatFigures(name: string, chats: readonly Chat[], note: string): Figure[] {
  const growths = chats.map(({ first, last }) => last / first);
  const shares = chats.map(({ bytes, said }) => bytes / said);
  const ms = (of: "first" | "last") => median(chats.map((one) => one[of])).toFixed(2);
  return [
    {
      name: `${name}: bytes over its messages`,
      on: "sqlite",
      unit: "times",
      ours: median(shares),
      spread: spreadOf(shares),
      asked: [atMost(median(shares), 3)],
      note: `${Math.round(median(chats.map(({ bytes }) => bytes)) / kilobyte).toLocaleString("en")} KB of files after the runtime has stopped, those of an empty store apart; the text is random words of this project's documentation`,
    },
    {
      name: `${name}: last 20 turns / first 20`,
      on: "sqlite",
      unit: "times",
      ours: median(growths),
      spread: spreadOf(growths),
      asked: [atMost(median(growths), 1.3)],
      note: `means over the bare call: ${ms("first")} ms, then ${ms("last")} ms; ${note}`,
    },
  ];
}

interface Steps {
  /** Milliseconds of a step, and of a call alone. */
  ours: number;
  bare: number;
  /** Milliseconds of processor time of a step, all threads together: others at work on the machine do not change them much. */
  cpu: number;
}

/** One request of 20 KB again and again: the time between two calls is a step. */
async function oneSize(count: number): Promise<Steps> {
  const words = new Words(7);
  const messages: Message[] = Array.from({ length: 20 }, (_, i) => ({
    role: i % 2 === 0 ? "user" : "assistant",
    content: words.text(kilobyte),
  }));
  const begun: number[] = [];
  const scripted = modelOf(() => {
    begun.push(performance.now());
    return words.text(200);
  });
  const flow = defineWorkflow({
    id: "steps",
    effects: [llmCall],
    entry: "ask",
    nodes: {
      ask: ({ vars }): StepPlan =>
        vars.count === count
          ? complete()
          : llmCall({ messages: vars.messages as Message[] }, { resultKey: "answer", nextNode: "note" }),
      note: ({ vars }): StepPlan => {
        vars.count += 1;
        delete vars.answer;
        return goto("ask");
      },
    },
  });
  const client = localLlm({ models: scripted });
  const directory = newPlace();
  const runtime = await createRuntime({
    workflows: [flow],
    effects: [llmEffect(client)],
    store: await sqliteStore(fileIn(directory)),
  });
  const cpu = cpuMs();
  await runtime.run(flow, { vars: { count: 0, messages } });
  const cpuOfStep = (cpuMs() - cpu) / count;
  await runtime.stop();
  remove(directory);
  const ours = median(gaps(begun));

  begun.length = 0;
  const context = bareContext();
  for (let i = 0; i < count; i++) await client.generate({ messages, params: {}, stream: true }, context);
  return { ours, bare: median(gaps(begun)), cpu: cpuOfStep };
}

interface Chat {
  /** Milliseconds over the bare call, of the first and the last turns. */
  first: number;
  last: number;
  /** On disk, and of all messages. */
  bytes: number;
  said: number;
}

/** @param parks Whether each message comes as an event that the run waits for, as a person's does, or from its own node. */
async function chat(parks: boolean): Promise<Chat> {
  const words = new Words(11);
  let done = Promise.withResolvers<void>();
  const begun: number[] = [];
  const flow = defineWorkflow({
    id: "chat",
    effects: [llmCall],
    entry: "listen",
    nodes: {
      listen: ({ vars }): StepPlan => {
        begun.push(performance.now());
        if (vars.messages.length === 2 * turns) return complete();
        if (parks) return waitEvent("said", { resultKey: "said", nextNode: "ask" });
        vars.said = { text: words.text(kilobyte) };
        return goto("ask");
      },
      ask: ({ vars }): StepPlan => {
        vars.messages.push({ role: "user", content: vars.said.text });
        delete vars.said;
        return llmCall({ messages: vars.messages }, { resultKey: "answer", nextNode: "note" });
      },
      note: ({ vars }): StepPlan => {
        vars.messages.push(assistantMessage(vars.answer as LlmResult));
        delete vars.answer;
        return goto("listen");
      },
    },
  });
  const client = localLlm({ models: modelOf(() => words.text(kilobyte)) });
  const directory = newPlace();
  const runtime = await createRuntime({
    workflows: [flow],
    effects: [llmEffect(client)],
    store: await sqliteStore(fileIn(directory)),
  });
  runtime.on("record", ({ kind }) => void (kind === "parked" && done.resolve()));
  const { runId } = await runtime.start(flow, { vars: { messages: [] } });
  const times: number[] = [];
  if (parks) await done.promise;
  for (let turn = 0; parks && turn < turns; turn++) {
    done = Promise.withResolvers();
    const start = performance.now();
    await runtime.signal(runId, "said", { text: words.text(kilobyte) });
    await (turn === turns - 1 ? runtime.result(runId) : done.promise);
    times.push(performance.now() - start);
  }
  await runtime.result(runId);
  const messages = (await runtime.get(runId)).vars.messages as unknown as Message[];
  await runtime.stop();
  const bytes = bytesIn(directory) - (await emptyBytes());
  remove(directory);
  if (!parks) times.push(...gaps(begun));

  const context = bareContext();
  const over: number[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const start = performance.now();
    await client.generate({ messages: messages.slice(0, 2 * turn + 1), params: {}, stream: true }, context);
    over.push((times[turn] as number) - (performance.now() - start));
  }
  return {
    first: mean(over.slice(0, 20)),
    last: mean(over.slice(-20)),
    bytes,
    said: Buffer.byteLength(JSON.stringify(messages)),
  };
}

/** Tables and indexes take their pages, whatever is in them. */
async function emptyBytes(): Promise<number> {
  const directory = newPlace();
  await (await createRuntime({ store: await sqliteStore(fileIn(directory)) })).stop();
  const bytes = bytesIn(directory);
  remove(directory);
  return bytes;
}

function gaps(moments: readonly number[]): number[] {
  return moments.slice(1).map((moment, i) => moment - (moments[i] as number));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** What a client looks at in a context, and nothing of a run. */
function bareContext(): EffectContext {
  const signal = new AbortController().signal;
  return { signal, stream: () => undefined, clock: { now: () => 0 } } as unknown as EffectContext;
}

/** A model that answers at once, in parts. */
function modelOf(answer: () => string): LanguageModel {
  const usage = { inputTokens: { total: 1 }, outputTokens: { total: 1 } };
  return {
    specificationVersion: "v4",
    provider: "bench",
    modelId: "bench",
    doGenerate: () => Promise.reject(new Error("It only streams.")),
    async doStream() {
      const text = answer();
      const size = Math.ceil(text.length / partsOfAnswer);
      const stream = new ReadableStream({
        start(controller) {
          for (let at = 0; at < text.length; at += size)
            controller.enqueue({ type: "text-delta", id: "0", delta: text.slice(at, at + size) });
          controller.enqueue({ type: "finish", usage, finishReason: { unified: "stop", raw: "stop" } });
          controller.close();
        },
      });
      return { stream };
    },
  };
}

/** Text of random words out of this project's documentation, the same ones in each round: it compresses as prose does, at best. */
class Words {
  readonly #words: string[];
  #seed: number;

  constructor(seed: number) {
    const docs = join(import.meta.dirname, "../docs");
    const text = globSync("*.md", { cwd: docs })
      .sort()
      .map((file) => readFileSync(join(docs, file), "utf8"))
      .join(" ");
    this.#words = [...new Set(text.match(/[A-Za-z]{2,}/g))];
    this.#seed = seed;
  }

  text(length: number): string {
    let text = "";
    while (text.length < length) {
      this.#seed = (Math.imul(this.#seed, 1_664_525) + 1_013_904_223) >>> 0;
      text += `${this.#words[this.#seed % this.#words.length]} `;
    }
    return text.slice(0, length);
  }
}
