// Keys reach their server and nothing else: no record, no log, no error, no stream, also where the server repeats what it was sent.
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StreamPart } from "abstractruntime";
import { llmCall, remoteLlm } from "abstractruntime/llm";
import { sqliteStore } from "abstractruntime/sqlite";
import { testClock } from "abstractruntime/testing";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { OpenAiServer, type Reply, type Seen } from "../openai-server.ts";
import { after, outputOf, place, providers } from "./place.ts";

const key = "planted-key-4f1d9c";
const token = "planted-token-77aa";
const bare = "planted-header-e20b";
const secrets = /planted-(key|token|header)/;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "llm-secrets-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** What a careless server says of a request. */
const echo = ({ headers }: Seen) =>
  `bad ${headers.authorization}, ${headers["x-provider"]}, ${headers["x-bare"]} and Bearer elsewhere-token`;
const long = (seen: Seen) => `${"x".repeat(490)} ${echo(seen)}`;
const replies: [string, (seen: Seen) => Reply][] = [
  ["an error of the request", (seen) => ({ status: 401, error: { error: { message: echo(seen) } } })],
  ["an error at the edge of what is kept", (seen) => ({ status: 400, error: { error: { message: long(seen) } } })],
  ["an error of the server", (seen) => ({ status: 500, error: { error: { message: echo(seen) } } })],
  ["a page", (seen) => ({ status: 502, error: `<html>${echo(seen)}</html>` })],
  ["a body that is no JSON", (seen) => ({ raw: `{${echo(seen)}` })],
  ["an event that is no JSON", (seen) => ({ raw: `data: {${echo(seen)}\n\n` })],
  ["an error in mid-stream", (seen) => ({ midError: { after: 1, error: { message: echo(seen) } } })],
  ["a redirect", (seen) => ({ status: 308, headers: { location: `http://127.0.0.1:9/?key=${seen.headers.authorization}` } })],
];

describe.each(providers)("$version", ({ provider }) => {
  test.each(replies)("%s", async (_, reply) => {
    await using server = await OpenAiServer.start(reply);
    const client = remoteLlm({
      baseUrl: server.url,
      model: "small",
      provider,
      apiKey: async () => `${key}\n`,
      headers: () => ({ "X-Provider": ` Token ${token}`, "X-Bare": `${bare} ` }),
    });
    const store = await sqliteStore(join(directory, "runs.db"), { clock: testClock() });
    let records: string;
    {
      await using here = await place(client, () => llmCall({ prompt: "Hi" }, after), { store, policy: { maxAttempts: 1 } });
      const run = await here.ask();
      const { code, message } = outputOf(run);
      expect(code).toMatch(/^LLM_(REFUSED|UNAVAILABLE)$/);
      expect(message).not.toMatch(/elsewhere-token/);
      const stored = await store.records(run.runId, 0, 100);
      const watched: unknown[] = [];
      for await (const item of here.runtime.watch(run.runId)) watched.push(item);
      records = JSON.stringify([run, stored, watched, await here.runtime.ledger(run.runId), here.logged]);
      expect(server.requests[0]?.headers).toMatchObject({
        authorization: `Bearer ${key}`,
        "x-provider": `Token ${token}`,
        "x-bare": bare,
      });
    }
    expect(records).toContain("LLM_");
    expect(records).not.toMatch(secrets);
    const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(files).not.toEqual([]);
    for (const { parentPath, name } of files) expect(readFileSync(join(parentPath, name), "latin1")).not.toMatch(secrets);
  });
});

const odd = 'planted/odd+"key\\one==0001';
const repeated: [string, (text: string) => string][] = [
  ["as it is", (text) => text],
  ["in JSON", (text) => JSON.stringify({ detail: text })],
  ["in JSON of another language", (text) => JSON.stringify({ detail: text }).replaceAll("/", "\\/")],
  ["in a URL", (text) => `<a href="/login?key=${encodeURIComponent(text)}">`],
  ["in part", () => "no signature planted-sig-0002"],
  ["as part of another", () => "no planted/odd+with-more"],
];
test.each(repeated)("a key with all kinds of characters, repeated in an error %s", async (_, said) => {
  await using server = await OpenAiServer.start(({ headers }) => ({
    status: 401,
    error: said(String(headers.authorization).slice("Bearer ".length)),
  }));
  const headers = () => ({
    "X-Signed": "V4 Credential=planted-cred-0001, Signature=planted-sig-0002",
    "X-First": "planted/odd+",
  });
  const client = remoteLlm({
    baseUrl: server.url,
    model: "small",
    apiKey: odd,
    headers: () => ({ ...headers(), "X-More": "planted/odd+with-more" }),
  });
  await using here = await place(client, () => llmCall({ prompt: "Hi" }, after));
  const { runId, output } = await here.ask();
  expect(output).toMatchObject({ code: "LLM_REFUSED", message: expect.stringContaining("[secret]") });
  expect(JSON.stringify([output, await here.runtime.ledger(runId), here.logged])).not.toMatch(/planted|with-more|key.{1,8}one/);
});

describe("an answer that repeats a key", () => {
  /** Cut into deltas of so many characters. */
  const cut = (text: string, size: number) => text.match(new RegExp(`.{1,${size}}`, "gs")) as string[];

  test.each([1, 5, 1_000])("in deltas of %i characters: no key is streamed, or recorded", async (size) => {
    const say = ({ headers }: Seen) => `You are ${headers.authorization} pla, ${headers["x-provider-key"]} planted-k`;
    const reply = (seen: Seen): Reply => ({
      content: cut(say(seen), size),
      reasoning: cut(say(seen), size),
      toolCalls: [
        { id: `c ${say(seen)}`, name: "look", arguments: cut(JSON.stringify({ at: say(seen), [say(seen)]: 1 }), size) },
      ],
      model: say(seen),
    });
    await using server = await OpenAiServer.start(reply);
    const client = remoteLlm({
      baseUrl: server.url,
      model: "small",
      apiKey: key,
      headers: () => ({ "X-Provider-Key": odd, "X-Title": "You are" }),
    });
    await using here = await place(client, () => llmCall({ prompt: "Hi" }, after));
    const run = await here.ask();
    const watched: StreamPart[] = [];
    for await (const item of here.runtime.watch(run.runId)) if (item.kind === "stream") watched.push(item.part);
    const textOf = (type: string) => watched.flatMap((part) => (part.type === type ? [part.text] : [])).join("");
    const clean = "You are Bearer [secret] pla, [secret] planted-k";
    expect(outputOf(run).got).toMatchObject({
      content: clean,
      reasoning: clean,
      model: clean,
      toolCalls: [{ callId: `c ${clean}`, arguments: { at: clean, [clean]: 1 } }],
      textHash: createHash("sha256").update(clean).digest("hex"),
    });
    expect([textOf("text"), textOf("reasoning")]).toEqual([clean, clean]);
    expect(JSON.parse(textOf("tool-call"))).toEqual({ at: clean, [clean]: 1 });
    const all = JSON.stringify([run, watched, await here.runtime.ledger(run.runId), here.logged]);
    expect(all).not.toMatch(/planted-key|odd\+|one==/);
  });

  test("a short word is no key, though one was given", async () => {
    await using server = await OpenAiServer.start({ content: "Use ollama, EMPTY or none." });
    const client = remoteLlm({ baseUrl: server.url, model: "small", apiKey: "ollama", headers: () => ({ "X-Key": "none" }) });
    await using here = await place(client, () => llmCall({ prompt: "Hi" }, after));
    expect(outputOf(await here.ask()).got).toMatchObject({ content: "Use ollama, EMPTY or none." });
  });
});

test.each([
  [{ apiKey: () => undefined }, "apiKey() gave undefined and no text"],
  [{ headers: () => ({ "X-Key": 5 }) }, "headers(), for X-Key, gave number and no text"],
])("what is no text is said to be none", async (options, problem) => {
  await using server = await OpenAiServer.start({});
  const client = remoteLlm({ baseUrl: server.url, model: "small", ...(options as object) });
  await using here = await place(client, () => llmCall({ prompt: "Hi" }, after), { policy: { maxAttempts: 1 } });
  expect(outputOf(await here.ask()).message).toContain(problem);
  expect(server.requests).toEqual([]);
});

test.each([
  [
    "a proxy",
    () =>
      new Proxy(
        {},
        {
          get: () => {
            throw new Error(key);
          },
        },
      ),
  ],
  ["a code that is no number", () => ({ code: Symbol(key), message: key })],
  ["null", () => null],
])("what is thrown may be hostile: %s", async (_, thrown) => {
  await using server = await OpenAiServer.start({});
  const client = remoteLlm({
    baseUrl: server.url,
    model: "small",
    apiKey: key,
    headers: () => {
      throw thrown();
    },
  });
  await using here = await place(client, () => llmCall({ prompt: "Hi" }, after), { policy: { maxAttempts: 1 } });
  const { output, runId } = await here.ask();
  expect(output).toMatchObject({ code: "LLM_UNAVAILABLE" });
  expect(JSON.stringify([output, await here.runtime.ledger(runId), here.logged])).not.toMatch(secrets);
});

test("a key that cannot be had fails the attempt, and the next one asks again", async () => {
  await using server = await OpenAiServer.start({});
  let asked = 0;
  const apiKey = () => {
    if (++asked === 1) throw new Error("the vault is sealed");
    return key;
  };
  await using here = await place(remoteLlm({ baseUrl: server.url, model: "small", apiKey }), () =>
    llmCall({ prompt: "Hi" }, after),
  );
  const { runId } = await here.ask();
  expect(server.requests).toEqual([]);
  await here.retry(runId);
  expect(server.requests).toHaveLength(1);
  const failed = (await here.runtime.ledger(runId)).find(({ kind }) => kind === "effect_failed");
  expect(failed?.data).toMatchObject({ error: { message: expect.stringContaining("the vault is sealed") } });
});

test("a key that cannot be sent is in no error either", async () => {
  await using server = await OpenAiServer.start({});
  const client = remoteLlm({ baseUrl: server.url, model: "small", apiKey: `${key}\nX-More: ${token}` });
  await using here = await place(client, () => llmCall({ prompt: "Hi" }, after), { policy: { maxAttempts: 1 } });
  const { runId, output } = await here.ask();
  expect(output).toMatchObject({ code: "LLM_UNAVAILABLE" });
  expect(JSON.stringify([output, await here.runtime.ledger(runId), here.logged])).not.toMatch(secrets);
  expect(server.requests).toEqual([]);
});

test("a server that redirects to another one gets there neither the key nor the prompt", async () => {
  await using other = await OpenAiServer.start({});
  await using server = await OpenAiServer.start({ status: 307, headers: { location: `${other.url}/chat/completions` } });
  const client = remoteLlm({ baseUrl: server.url, model: "small", apiKey: key });
  await using here = await place(client, () => llmCall({ prompt: "Hi" }, after));
  expect(outputOf(await here.ask()).code).toBe("LLM_REFUSED");
  expect(other.requests).toEqual([]);
});
