// How a schema comes to be what the store needs, and what is said when it cannot.
import { postgresStore } from "abstractruntime/postgres";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { migrations } from "../../src/stores/postgres/tables.ts";
import { stored, World } from "../../src/testing/contract/world.ts";
import { testClock } from "../../src/testing/index.ts";
import { dropSchema, newSchema, serverUrl, sqlOn } from "./postgres-server.ts";

/** A schema that goes with the test. */
function schemaFor(): string {
  const schema = newSchema();
  onTestFinished(async () => void (await dropSchema(schema)));
  return schema;
}

async function refusal(options: Parameters<typeof postgresStore>[0]): Promise<string> {
  try {
    const store = await postgresStore(options);
    await store.close();
    return "it was opened";
  } catch (error) {
    return (error as Error).message;
  }
}

/** The address of the server with other parts. */
function urlWith(change: (url: URL) => void): string {
  const url = new URL(serverUrl());
  change(url);
  return url.href;
}

it("one schema may be made by many at once, and is made once", async () => {
  const schema = schemaFor();
  const open = () => postgresStore({ connectionString: serverUrl(), schema, connections: 1, clock: testClock() });
  const stores = await Promise.all(Array.from({ length: 6 }, open));
  const versions = await sqlOn(`SELECT version FROM ${schema}.migrations`);
  expect(versions).toEqual(migrations.map((_, i) => ({ version: i + 1 })));
  const [first] = stores;
  const run = new World(first as (typeof stores)[0], testClock(), undefined).newRun();
  expect(await Promise.all(stores.map((store) => store.create([stored(run)])))).toContainEqual([true]);
  await Promise.all(stores.map((store) => store.close()));
});

it("a schema that newer code has written is refused, and not touched", async () => {
  const schema = schemaFor();
  await (await postgresStore({ connectionString: serverUrl(), schema })).close();
  await sqlOn(`INSERT INTO ${schema}.migrations (version) VALUES (${migrations.length + 1})`);
  expect(await refusal({ connectionString: serverUrl(), schema })).toMatch(/^FORMAT_NEWER: .*Upgrade abstractruntime/);
});

it("a migration that is interrupted leaves nothing, and the next one begins anew", async () => {
  const schema = schemaFor();
  const pool = new pg.Pool({ connectionString: serverUrl(), max: 1 });
  onTestFinished(() => pool.end());
  // Its connection is cut in the middle, before the last function is made.
  const client = await pool.connect();
  const query = client.query.bind(client) as (...args: unknown[]) => Promise<unknown>;
  let made = 0;
  client.query = (async (statement: unknown, ...rest: unknown[]) => {
    const text = typeof statement === "string" ? statement : (statement as { text: string }).text;
    if (text.includes("CREATE FUNCTION") && ++made === 3) await query("SELECT pg_terminate_backend(pg_backend_pid())");
    return query(statement, ...rest);
  }) as typeof client.query;
  client.release();
  // On the next connection there is nothing to stumble over.
  expect(await refusal({ pool, schema })).toBe("it was opened");
  expect(made).toBe(3);
  expect(await sqlOn(`SELECT version FROM ${schema}.migrations`)).toHaveLength(migrations.length);
});

it("a schema with tables, but no record of how they were made, is refused: half of a restored backup, or another program's", async () => {
  const schema = schemaFor();
  await sqlOn(`CREATE SCHEMA ${schema}`);
  await sqlOn(`CREATE TABLE ${schema}.runs (id int)`);
  expect(await refusal({ connectionString: serverUrl(), schema })).toMatch(/^STORE_CORRUPT: .*choose another `schema`/);
  expect(await sqlOn(`SELECT count(*)::int AS n FROM pg_tables WHERE schemaname = '${schema}'`)).toEqual([{ n: 1 }]);
});

it("an empty schema that exists is used", async () => {
  const schema = schemaFor();
  await sqlOn(`CREATE SCHEMA ${schema}`);
  expect(await refusal({ connectionString: serverUrl(), schema })).toBe("it was opened");
});

it("a role that may not create anything is told what it needs, and may use what another has made for it", async () => {
  const [schema, role] = [schemaFor(), newSchema()];
  await sqlOn(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`);
  onTestFinished(async () => void (await sqlOn(`DROP OWNED BY ${role}; DROP ROLE ${role}`)));
  const connectionString = urlWith((url) => {
    url.username = role;
    url.password = "secret";
  });
  expect(await refusal({ connectionString, schema })).toMatch(/^STORE_UNAVAILABLE: .*permission denied.*needs CREATE/);
  await (await postgresStore({ connectionString: serverUrl(), schema })).close();
  expect(await refusal({ connectionString, schema })).toMatch(/^STORE_UNAVAILABLE: .*permission denied/);
  await sqlOn(`GRANT USAGE ON SCHEMA ${schema} TO ${role};
    GRANT ALL ON ALL TABLES IN SCHEMA ${schema} TO ${role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA ${schema} TO ${role}`);
  const store = await postgresStore({ connectionString, schema });
  expect(await store.create([stored(new World(store, testClock(), undefined).newRun())])).toEqual([true]);
  await store.close();
});

it("a role whose transactions see more than is committed, or less, is told so", async () => {
  const [schema, role] = [schemaFor(), newSchema()];
  await sqlOn(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD 'secret'`);
  await sqlOn(`ALTER ROLE ${role} SET default_transaction_isolation = 'serializable'`);
  onTestFinished(async () => void (await sqlOn(`DROP ROLE ${role}`)));
  const connectionString = urlWith((url) => {
    url.username = role;
    url.password = "secret";
  });
  expect(await refusal({ connectionString, schema })).toMatch(/^STORE_UNAVAILABLE: .*"serializable".*ALTER ROLE/);
});

it.each([
  ["another password", { password: "wrong" }, /STORE_UNAVAILABLE: .*check user and password/],
  ["another database", { pathname: "/nowhere" }, /STORE_UNAVAILABLE: .*create the database/],
  ["a port where nobody listens", { port: "1" }, /STORE_UNAVAILABLE: .*no server listens there/],
  ["no host that is known", { hostname: "nowhere.invalid" }, /STORE_UNAVAILABLE: .*check the host/],
])("a connection string with %s is refused at once", async (_, part, said) => {
  expect(await refusal({ connectionString: urlWith((url) => void Object.assign(url, part)) })).toMatch(said);
});

it("a connection string that is no URL is refused with how to write one", async () => {
  expect(await refusal({ connectionString: "postgres://me:se/cret@127.0.0.1/db" })).toMatch(
    /^STORE_UNAVAILABLE: (?!.*cret).*no URL.*%2F/,
  );
});

it("no name of a store holds a password", async () => {
  const schema = schemaFor();
  const store = await postgresStore({ connectionString: serverUrl(), schema });
  expect(store.name).not.toContain(new URL(serverUrl()).password);
  await store.close();
});

it("an option that is not known, or no place at all, is refused by name", async () => {
  expect(await refusal({ connectionString: "postgres://x", shema: "y" } as never)).toContain('Did you mean "schema"?');
  expect(await refusal({})).toMatch(/^INVALID_OPTION: .*either a connectionString or a pool/);
  expect(await refusal("postgres://x" as never)).toMatch(/^INVALID_OPTION: .*postgresStore\(\{ connectionString \}\)/);
  expect(await refusal({ pool: {} as never })).toMatch(/^INVALID_OPTION: .*pool of `pg`/);
  expect(await refusal({ connectionString: "postgres://x", schema: 'a"; DROP' })).toMatch(/^INVALID_OPTION: .*schema/);
});
