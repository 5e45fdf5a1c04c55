/**
 * `npm run bench` measures everything; `npm run bench -- NAME ...` some of it. Nothing here passes or fails: it prints what
 * was asked beside what was reached, on the machine it names.
 */
import { parseArgs } from "node:util";
import { age } from "./age.ts";
import { answer } from "./answer.ts";
import { artifact } from "./artifact.ts";
import { chaining } from "./chaining.ts";
import { cold } from "./cold.ts";
import { storeNames } from "./compare.ts";
import { concurrent } from "./concurrent.ts";
import { crash } from "./crash.ts";
import { crowd } from "./crowd.ts";
import { fan } from "./fan.ts";
import { type Figure, table } from "./figure.ts";
import { growth } from "./growth.ts";
import { machine, syncsPerSecond } from "./machine.ts";
import { model } from "./model.ts";
import { old } from "./old.ts";
import { park } from "./park.ts";
import { postgres } from "./postgres.ts";
import { costs } from "./postgres-costs.ts";
import { startProfiling, takeProfile } from "./profile.ts";
import { type Settings, settingsOf } from "./settings.ts";
import { barrier, speculative } from "./steps.ts";
import { stream } from "./stream.ts";
import { waiting } from "./waiting.ts";

const subjects: Record<string, (settings: Settings) => Promise<Figure[]>> = {
  speculative,
  barrier,
  concurrent,
  park,
  answer,
  growth,
  age,
  old,
  waiting,
  fan,
  crash,
  cold,
  chaining,
  model,
  stream,
};
/** Minutes of work and gigabytes of disk: only when they are named, or with `--long`. */
const long: typeof subjects = { crowd, artifact };
/** They have a server of their own, and figures of their own. */
const servers: typeof subjects = { postgres, costs };
const all = { ...subjects, ...long, ...servers };

const usage = `npm run bench -- [NAME ...] [--quick] [--rounds N] [--profile] [--json]

  NAME       ${Object.keys(subjects).join(", ")}. Default: all.
             ${Object.keys(long).join(", ")}: a million runs, gigabytes; minutes. Only when named, or with --long.
  --quick    A tenth of the work: whether it runs, not how fast.
             postgres, costs: only when named, or with --on postgres.
  --on STORE Only on memory, sqlite or postgres. Default: memory and sqlite.
  --rounds N How often each is measured. Default: 3 to 15, by subject.
  --profile  Also where our side of the subjects spends its time. The figures are then those of a profiled process.
  --json     One JSON value instead of tables.`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    long: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
    on: { type: "string" },
    rounds: { type: "string" },
    help: { type: "boolean", default: false },
  },
});
const unknown = positionals.find((name) => !Object.hasOwn(all, name));
const stores = storeNames.filter((name) => values.on === undefined || values.on === name);
const rounds = values.rounds === undefined ? undefined : Number(values.rounds);
if (
  values.help ||
  unknown !== undefined ||
  (stores.length === 0 && values.on !== "postgres") ||
  (rounds !== undefined && !(rounds >= 1))
) {
  if (unknown !== undefined) console.error(`There is no benchmark "${unknown}".`);
  console.error(usage);
  process.exit(values.help ? 0 : 2);
}

const settings = settingsOf({ quick: values.quick, rounds, stores });
const before = machine();
const figures: Figure[] = [];
const say = (text: string): void => {
  if (!values.json) console.log(text);
};
say(
  `${before.cores} cores (${before.cpu}), ${before.memoryGb} GB, ${before.system}, Node ${before.node}, SQLite ${before.sqlite}, code from ${before.code}/\n` +
    `bare appends of 500 bytes with fdatasync: ${before.syncsPerSecond.toLocaleString("en")}/s; load before the start: ${before.load.toFixed(2)}\n`,
);
if (values.profile) await startProfiling();
const named = values.on === "postgres" ? Object.keys(servers) : positionals;
for (const name of named.length > 0 ? named : Object.keys(values.long ? { ...subjects, ...long } : subjects)) {
  const found = await all[name]!(settings);
  figures.push(...found);
  say(`${table(found)}\n`);
  if (values.profile) say(`${takeProfile()}\n`);
}
const after = Math.round(syncsPerSecond());
if (values.json) console.log(JSON.stringify({ machine: { ...before, syncsPerSecondAfter: after }, figures }, null, 2));
else say(`bare appends with fdatasync, after: ${after.toLocaleString("en")}/s`);
