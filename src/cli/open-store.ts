/** The forms of `--store`, and how a store of each is opened. What a store needs is loaded only when it is asked for. */
import { statSync } from "node:fs";
import { nearest, type Store } from "../index.ts";
import { wrongUse } from "./problem.ts";

type StorePlace = { kind: "sqlite" | "files"; path: string } | { kind: "postgres"; url: string };

const forms: Record<string, string> = { sqlite: "sqlite:PATH", files: "files:DIR", postgres: "postgres://USER@HOST/DATABASE" };
const kinds = Object.keys(forms);

/** @param option Where it was given. @throws INVALID_OPTION */
export function storePlace(given: string, option = "--store"): StorePlace {
  const [, kind, path] = /^([a-z]{2,}):(.*)$/is.exec(given) ?? [];
  const refuse = (problem: string, hint: string): never => {
    throw wrongUse(option, problem, hint);
  };
  if (kind === undefined || path === undefined)
    return refuse(`${option} "${given}" does not say which kind of store it is`, `Did you mean "sqlite:${given}"?`);
  if (kind === "postgres" || kind === "postgresql") {
    // A socket's directory may stand where the host does, so its parts are the driver's to read.
    if (path.startsWith("//")) return { kind: "postgres", url: given };
    return refuse(`${option} "${withoutPassword(given)}" names no server`, `Write it as ${forms.postgres}.`);
  }
  if (kind !== "sqlite" && kind !== "files") {
    const suggestion = nearest(kind, kinds);
    return refuse(
      `${option} "${given}" names an unknown kind of store, "${kind}" (known: ${kinds.join(", ")})`,
      suggestion ? `Did you mean "${suggestion}:${path}"?` : `Write it as ${Object.values(forms).join(", or ")}.`,
    );
  }
  if (path === "" || path === ":memory:")
    return refuse(
      `${option} "${given}" names no ${kind === "files" ? "directory" : "file"}`,
      `Write it as ${forms[kind]}; a store in memory would end with this command.`,
    );
  return { kind, path };
}

/** Opens a store, which is made where it is missing. Whoever calls closes it. @throws INVALID_OPTION, and what opening it rejects with. */
export async function openStore(given: string): Promise<Store> {
  const place = storePlace(given);
  switch (place.kind) {
    case "sqlite":
      return (await import("../stores/sqlite/index.ts")).sqliteStore(place.path);
    case "files":
      return (await import("../stores/files/index.ts")).filesStore(place.path);
    case "postgres":
      return (await import("../stores/postgres/index.ts")).postgresStore(postgresOptions(place.url));
  }
}

/** Whether there is something at that place. Of a place that cannot be asked, only opening it tells. */
export async function storeExists(given: string): Promise<boolean> {
  const place = storePlace(given);
  if (place.kind === "postgres") {
    const { hasStore } = await import("../stores/postgres/index.ts");
    return hasStore(postgresOptions(place.url)).catch(() => true);
  }
  try {
    statSync(place.path);
    return true;
  } catch (error) {
    // A directory that may not be entered is met when the store is opened, with its own words.
    return (error as NodeJS.ErrnoException).code !== "ENOENT";
  }
}

/** `?schema=NAME` is ours; everything else is the driver's to read. */
function postgresOptions(url: string): { connectionString: string; schema?: string } {
  const [base = "", query] = url.split("?", 2);
  const parameters = new URLSearchParams(query);
  const schema = parameters.get("schema");
  if (schema === null) return { connectionString: url };
  parameters.delete("schema");
  return { connectionString: parameters.size > 0 ? `${base}?${parameters}` : base, schema };
}

/** A store as it names itself, as `--store` takes it. Who connects is not in its name. */
export function storeAddress(name: string): string {
  const [, url, schema] = /^(postgres:.+) \(schema (\w+)\)$/.exec(name) ?? [];
  if (url === undefined) return name;
  return schema === "abstractruntime" ? url : `${url}?schema=${schema}`;
}

/** What may be printed. */
export function withoutPassword(store: string): string {
  return store.replace(/^(postgres(?:ql)?:\/\/[^@/:]*):[^?]*@/i, "$1@").replace(/([?&])password=[^&]*(&|$)/gi, "$1");
}
