/** What a server was given in confidence. None of it may get into a result, a question, an error or a log, whatever the server answers. */
import type { Json } from "../../index.ts";
import { Cutter, formsOf } from "../secrets.ts";
import type { McpServerOptions } from "./server-options.ts";

/** What is shorter is no secret, and would be found in every other word. */
const shortest = 6;
/** Functions may give a new key for each request: so many of the latest are known. */
const mostFetched = 200;

export class Secrets {
  readonly #fixed = new Set<string>();
  /** From functions, the latest last. */
  readonly #fetched = new Set<string>();

  constructor({ env = {}, args = [], headers, url }: Pick<McpServerOptions, "env" | "args" | "headers" | "url">) {
    const given = [...Object.entries(env), ...namedArgs(args)];
    for (const [name, value] of given) if (isSecret(name, value)) add(this.#fixed, value);
    for (const text of [...given.map(([, value]) => value), ...(url === undefined ? [] : [String(url)])])
      for (const secret of secretsOfUrl(text)) add(this.#fixed, secret);
    // An address may be a key itself.
    for (const part of URL.parse(String(url))?.pathname.split("/") ?? []) if (isSecret("", part)) add(this.#fixed, part);
    if (typeof headers === "object") addHeaders(this.#fixed, headers);
  }

  /** Characters of the longest. */
  get longest(): number {
    return Math.max(0, ...[...this.#fixed, ...this.#fetched].map(({ length }) => length));
  }

  addFetched(headers: Readonly<Record<string, string>>): void {
    addHeaders(this.#fetched, headers);
    for (const oldest of this.#fetched) {
      if (this.#fetched.size <= mostFetched) break;
      this.#fetched.delete(oldest);
    }
  }

  scrub(text: string): string {
    return this.#cutter().cut(text);
  }

  /** Names of members too. */
  scrubJson<T extends Json>(value: T): T {
    return this.#cutter().cutIn(value);
  }

  #cutter(): Cutter {
    return new Cutter([...this.#fixed, ...this.#fetched]);
  }
}

function add(secrets: Set<string>, text: string): void {
  if (text.length < shortest) return;
  for (const form of formsOf(text)) {
    secrets.delete(form);
    secrets.add(form);
  }
}

/** All of their values, and their words: a key stands behind its scheme. */
function addHeaders(secrets: Set<string>, headers: Readonly<Record<string, string>>): void {
  for (const value of Object.values(headers)) for (const text of [value, ...value.split(/\s+/)]) add(secrets, text);
}

/** The password of a URL, and what its query says in confidence; nothing of another text. */
function secretsOfUrl(text: string): string[] {
  const url = URL.parse(text);
  if (!url) return [];
  const query = [...url.searchParams].filter(([name, value]) => isSecret(name, value)).map(([, value]) => value);
  // A name alone is a key.
  const secret = url.password || url.username;
  return [secret, decoded(secret), ...query];
}

/** `--token=x` and `--token x`, by the option's name; what stands alone has none, and no path is named by an option such as `--keys`. */
function namedArgs(args: readonly string[]): [name: string, value: string][] {
  return args.map((arg, i) => {
    const [, option, assigned] = /^--?([\w-]+)=(.*)$/s.exec(arg) ?? [];
    const before = args[i - 1] ?? "";
    const name = option ?? (before.startsWith("-") && !before.includes("=") && !arg.startsWith("-") ? before : "");
    const value = assigned ?? arg;
    return [/^[./~\\]|^[A-Za-z]:[\\/]/.test(value) ? "" : name, value];
  });
}

/**
 * By its name, or because it looks like a key. Everything that a server is given cannot count as secret: where a directory was passed,
 * the paths that its tools answer with must stay whole.
 */
function isSecret(name: string, value: string): boolean {
  return (
    /key|token|secret|pass|pwd|auth|cred|cookie|session|private|signature|dsn|conn|_pat$/i.test(name) ||
    /^(?=.*\d)(?=.*[A-Za-z])[\w+=~-]{20,}$/.test(value) ||
    /^eyJ[\w.-]+$/.test(value)
  );
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
