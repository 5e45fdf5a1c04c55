import { isError, nearest, type Runtime } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { findRun } from "../find-run.ts";
import { type ForkFlags, makeRun } from "./fork.ts";
import { parseLimit } from "../ls-query.ts";
import { moment } from "../moment.ts";
import { reading } from "../open-runtime.ts";
import { Advised, wrongUse } from "../problem.ts";
import { parseSeq } from "../run-point.ts";

interface SnapshotFlags extends ForkFlags {
  name?: string;
  description?: string;
  at?: string;
  run?: string;
  text?: string;
  limit?: string;
}

const actions = ["list", "create", "delete", "restore"] as const;
type Action = (typeof actions)[number];

/** The flags that an action takes. */
const flagsOf: Record<Action, readonly (keyof SnapshotFlags)[]> = {
  list: ["run", "tag", "text", "limit"],
  create: ["name", "description", "tag", "at", "id"],
  delete: [],
  restore: ["vars", "restart", "tag", "id", "file"],
};

export const addSnapshot: AddCommand = (program, act) => {
  program
    .command("snapshot")
    .description("bookmarks of runs: list them, mark a run, delete one, or start a new run from one")
    .argument("[action]", `${actions.join(", ")} (default: list)`)
    .argument("[id]", "of create: the run, or its beginning; of delete and restore: the snapshot")
    .option("--name <name>", "of create: what it is called")
    .option("--description <text>", "of create: what it is")
    .option("--at <seq>", "of create: the record to mark (default: the last one)")
    .option("--tag <tag...>", "of create and restore: its tags; of list: only those with this tag, whatever the case")
    .option("--run <run>", "of list: only those of this run")
    .option("--text <text>", "of list: only those with this in their name or description, whatever the case")
    .option("--limit <number>", "of list: at most so many (default: 20)")
    .option("--vars <json>", "of restore: begin with these vars (default: those of the run there)")
    .option("--restart", "of restore: where a step was under way, or had just ended the run, run its node again")
    .option("--id <id>", "of create: id of the snapshot; of restore: id of the new run (default: a new one)")
    .option("--file <file>", "of restore: workflow file that exports the run's workflow; the new run is driven on here")
    .addHelpText(
      "after",
      `
Examples:
  $ abstractruntime snapshot create 3f2a --name "before the launch" --tag gold
  $ abstractruntime snapshot --tag gold
  $ abstractruntime snapshot restore 7b1c0f9e-2f6d-4c6a-9d0e-5f3a1b2c3d4e --restart --file approval.ts`,
    )
    .action(act(snapshot));
};

async function snapshot(cli: Cli, given: string | undefined, id: string | undefined, flags: SnapshotFlags): Promise<number> {
  const action = actionOf(given, id, flags);
  try {
    if (action === "list" || id === undefined) return await list(cli, flags);
    if (action === "create") return await create(cli, id, flags);
    if (action === "restore") return await restore(cli, id, flags);
    return await remove(cli, id);
  } catch (error) {
    throw isError(error, "SNAPSHOT_NOT_FOUND") ? advised(cli, error) : error;
  }
}

function advised(cli: Cli, error: ConstructorParameters<typeof Advised>[0]): Advised {
  return new Advised(error, `List them with \`${nextCommand(cli, "snapshot", [])}\`.`);
}

/** @throws INVALID_OPTION */
function actionOf(given: string | undefined, id: string | undefined, flags: SnapshotFlags): Action {
  const action = actions.find((known) => known === (given ?? "list"));
  if (!action) {
    const suggestion = nearest(given ?? "", actions);
    const hint = suggestion ? `Did you mean "${suggestion}"?` : `Use one of ${actions.join(", ")}.`;
    throw wrongUse("ACTION", `"${given}" is nothing to do with snapshots (known: ${actions.join(", ")})`, hint);
  }
  if (action === "list" && id !== undefined)
    throw wrongUse("ID", "list takes no id", `See those of one run with \`abstractruntime snapshot --run ${id}\`.`);
  if (action !== "list" && id === undefined)
    throw wrongUse("ID", `it is not said what to ${action}`, `Name it: \`abstractruntime snapshot ${action} ID\`.`);
  const other = (Object.keys(flags) as (keyof SnapshotFlags)[]).find(
    (flag) => Object.hasOwn(allFlags, flag) && !flagsOf[action].includes(flag),
  );
  if (other !== undefined) throw wrongUse(`--${other}`, `snapshot ${action} takes no --${other}`, "Leave it out.");
  return action;
}

const allFlags: Record<string, true> = Object.fromEntries(
  Object.values(flagsOf).flatMap((flags) => flags.map((flag) => [flag, true])),
);

async function list(cli: Cli, { run, tag, text, limit = "20" }: SnapshotFlags): Promise<number> {
  const wanted = parseLimit(limit);
  if (tag && tag.length > 1) throw wrongUse("--tag", "list looks for one tag", "Give one --tag.");
  const { snapshots, next } = await reading(cli, async (runtime) =>
    pagesOf(runtime, wanted, {
      ...(run === undefined ? {} : { runId: await findRun(runtime, run) }),
      ...(tag?.[0] === undefined ? {} : { tag: tag[0] }),
      ...(text === undefined ? {} : { text }),
    }),
  );
  const { terminal } = cli;
  const more = next !== undefined;
  if (cli.json) {
    terminal.json({ snapshots, more });
    return 0;
  }
  if (snapshots.length === 0) {
    terminal.note(
      `No snapshots${(run ?? tag ?? text) ? " like that" : " yet"}. Make one with \`${nextCommand(cli, "snapshot", ["create", "RUN"], { name: "NAME" })}\`.`,
    );
    return 0;
  }
  terminal.table(
    ["SNAPSHOT", "RUN", "RECORD", "NODE", "STATUS", "NAME", "TAGS", "CREATED (UTC)"],
    snapshots.map(({ snapshotId, runId, seq, node, status, name, tags, createdAt }) => [
      snapshotId,
      runId,
      String(seq),
      node,
      status,
      name,
      tags.join(", "),
      moment(createdAt).slice(0, 19),
    ]),
    [3, 4, 5, 6],
  );
  const again = { run, tag: tag?.[0], text, limit: String(wanted * 10) };
  if (more) terminal.note(`There are more: ${nextCommand(cli, "snapshot", [], again)}`);
  return 0;
}

async function pagesOf(
  runtime: Runtime,
  wanted: number,
  query: NonNullable<Parameters<Runtime["snapshots"]["list"]>[0]>,
): ReturnType<Runtime["snapshots"]["list"]> {
  const snapshots: Awaited<ReturnType<Runtime["snapshots"]["list"]>>["snapshots"] = [];
  let next: string | undefined;
  do {
    const cursor = next === undefined ? {} : { cursor: next };
    const page = await runtime.snapshots.list({ ...query, ...cursor, limit: Math.min(1_000, wanted - snapshots.length) });
    snapshots.push(...page.snapshots);
    next = page.next;
  } while (next !== undefined && snapshots.length < wanted);
  return { snapshots, ...(next === undefined ? {} : { next }) };
}

async function create(cli: Cli, given: string, { name, description, tag, at, id }: SnapshotFlags): Promise<number> {
  if (name === undefined)
    throw wrongUse("--name", "a snapshot needs a name", `Write it as \`abstractruntime snapshot create ${given} --name NAME\`.`);
  const made = await reading(cli, async (runtime) =>
    runtime.snapshots.create(await findRun(runtime, given), {
      name,
      ...(description === undefined ? {} : { description }),
      ...(tag === undefined ? {} : { tags: tag }),
      ...(at === undefined ? {} : { seq: parseSeq(at, "--at") }),
      ...(id === undefined ? {} : { snapshotId: id }),
    }),
  );
  if (cli.json) cli.terminal.json(made);
  else
    cli.terminal.line(
      `Snapshot ${made.snapshotId} marks record ${made.seq} of run ${made.runId}, at node "${made.node}".`,
      "green",
    );
  return 0;
}

async function remove(cli: Cli, snapshotId: string): Promise<number> {
  await reading(cli, async (runtime) => {
    if (await runtime.snapshots.delete(snapshotId)) return;
    // Says that there is none, as every other action does.
    await runtime.snapshots.get(snapshotId);
  });
  if (cli.json) cli.terminal.json({ snapshotId, deleted: true });
  else cli.terminal.line(`Snapshot ${snapshotId} is deleted. Its run stays as it is.`, "green");
  return 0;
}

async function restore(cli: Cli, snapshotId: string, flags: SnapshotFlags): Promise<number> {
  if (flags.file === undefined)
    throw wrongUse(
      "--file",
      "a snapshot is restored with the code of its workflow",
      "Name the file that exports it with --file.",
    );
  return makeRun(cli, flags, (runtime, options) => runtime.snapshots.restore(snapshotId, options));
}
