import { isError, nearest, type Runtime, type Schedule } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { applyHere } from "../control.ts";
import { moment, span, when } from "../moment.ts";
import { commanding, reading } from "../open-runtime.ts";
import { Advised, wrongUse } from "../problem.ts";
import { jsonLine } from "../terminal.ts";
import { loadWorkflowFile } from "../workflow-file.ts";

interface SchedulesOptions {
  file?: string;
  key?: string;
}

const actions = ["list", "show", "pause", "unpause", "delete", "trigger"] as const;
type Action = (typeof actions)[number];

export const addSchedules: AddCommand = (program, act) => {
  program
    .command("schedules")
    .description("list schedules, show one, pause it, let it go on, end it, or start a run of it now")
    .argument("[action]", `${actions.join(", ")} (default: list)`)
    .argument("[id]", "of the schedule, for all actions but list")
    .option("--file <file>", "of trigger: workflow file that exports the workflow to start")
    .option("--key <key>", "of trigger: stands for this start, so that a second one finds the first (default: a new one)")
    .addHelpText(
      "after",
      `
Schedules are made by programs: \`runtime.schedules.create\`. Runs that one has started go on, whatever becomes of it.

Examples:
  $ abstractruntime schedules
  $ abstractruntime schedules pause nightly
  $ abstractruntime schedules trigger nightly --file report.ts --key 2026-11-22`,
    )
    .action(act(schedules));
};

async function schedules(
  cli: Cli,
  given: string | undefined,
  id: string | undefined,
  options: SchedulesOptions,
): Promise<number> {
  const action = actionOf(given, id, options);
  try {
    if (action === "list" || id === undefined) return await list(cli);
    if (action === "show") return await reading(cli, (runtime) => show(cli, runtime, id));
    if (action === "trigger") return await trigger(cli, id, options);
    return await command(cli, action, id);
  } catch (error) {
    if (!isError(error, "SCHEDULE_NOT_FOUND") || error.fields.suggestion) throw error;
    throw new Advised(error, `List them with \`${nextCommand(cli, "schedules", [])}\`.`);
  }
}

/** @throws INVALID_OPTION */
function actionOf(given: string | undefined, id: string | undefined, { file, key }: SchedulesOptions): Action {
  const action = actions.find((known) => known === (given ?? "list"));
  if (!action) {
    const suggestion = nearest(given ?? "", actions);
    const hint = suggestion ? `Did you mean "${suggestion}"?` : `Use one of ${actions.join(", ")}.`;
    throw wrongUse("ACTION", `"${given}" is nothing to do with schedules (known: ${actions.join(", ")})`, hint);
  }
  if (action === "list" && id !== undefined)
    throw wrongUse("ID", "list takes no id", `See one schedule with \`abstractruntime schedules show ${id}\`.`);
  if (action !== "list" && id === undefined)
    throw wrongUse("ID", `it is not said which schedule to ${action}`, `Name it: \`abstractruntime schedules ${action} ID\`.`);
  if (action !== "trigger" && (file !== undefined || key !== undefined))
    throw wrongUse(file === undefined ? "--key" : "--file", "--file and --key are for trigger", "Leave them out.");
  if (action === "trigger" && file === undefined)
    throw wrongUse("--file", "a run is started with the code of its workflow", "Name the file that exports it with --file.");
  return action;
}

async function list(cli: Cli): Promise<number> {
  const found = await reading(cli, (runtime) => runtime.schedules.list());
  const { terminal } = cli;
  if (cli.json) terminal.json({ schedules: found });
  else if (found.length === 0)
    terminal.note("There are no schedules. A program makes one with runtime.schedules.create({ ... }).");
  else {
    const rows = found.map((schedule) => [
      schedule.id,
      schedule.spec.workflowId,
      timetable(schedule),
      status(schedule),
      schedule.nextAt === null ? "" : moment(schedule.nextAt).slice(0, 19),
      schedule.lastAt === undefined ? "" : moment(schedule.lastAt).slice(0, 19),
    ]);
    terminal.table(["SCHEDULE", "WORKFLOW", "FIRES", "STATUS", "NEXT (UTC)", "LAST (UTC)"], rows, [1, 2, 3]);
  }
  return 0;
}

async function show(cli: Cli, runtime: Runtime, id: string): Promise<number> {
  const schedule = await runtime.schedules.get(id);
  const { terminal } = cli;
  if (cli.json) {
    terminal.json(schedule);
    return 0;
  }
  const { spec, nextAt, lastAt, lastRunId, running, lastError, blocked, runId, createdAt, paused } = schedule;
  const now = (await runtime.store.load(runId))?.now ?? createdAt;
  terminal.line(`Schedule "${id}" of workflow "${spec.workflowId}" (${status(schedule)})`, "bold");
  terminal.fields([
    ["Fires", timetable(schedule)],
    [
      "Next",
      nextAt === null
        ? undefined
        : `${when(nextAt, now)}${paused ? ", were it not paused" : nextAt < now ? "; it waits for a worker with its workflow's code" : ""}`,
    ],
    ["Last", lastAt === undefined ? undefined : when(lastAt, now)],
    ["Last run", lastRunId === undefined ? undefined : `${lastRunId}${running ? " (has not ended)" : ""}`],
    ["Last error", lastError && `${lastError.code === undefined ? "" : `${lastError.code}: `}${lastError.message}`],
    ["Blocked", blocked && `${blocked.code}: ${blocked.problem}`],
    ["Overlap", spec.overlap],
    ["Catch-up", spec.catchUp],
    ["Budget", spec.budget && jsonLine(spec.budget)],
    ["Created", when(createdAt, now)],
    ["Its run", runId],
  ]);
  const next = nextCommand(cli, paused ? "schedules" : "why", paused ? ["unpause", id] : [runId]);
  if (schedule.status === "active") terminal.line(`Next: ${next}`, "green");
  return 0;
}

async function command(cli: Cli, action: "pause" | "unpause" | "delete", id: string): Promise<number> {
  return commanding(cli, [], async (runtime) => {
    // It is gone when it is deleted a second time, and there is then nothing to carry out.
    const found = action === "delete" ? await existing(runtime, id) : await runtime.schedules.get(id);
    await runtime.schedules[action](id);
    // It holds from now on, as it is stored; what only takes a worker is done here.
    if (found && action !== "unpause") await applyHere(runtime, found.runId);
    const { terminal } = cli;
    const schedule = await existing(runtime, id);
    if (cli.json) terminal.json({ id, action, schedule: schedule ?? null });
    else if (action === "delete") terminal.line(`Schedule "${id}" is deleted: nothing fires any more.`, "green");
    else if (action === "pause") {
      terminal.line(`Schedule "${id}" is paused: nothing fires until it is unpaused.`, "green");
      terminal.line(`Next: ${nextCommand(cli, "schedules", ["unpause", id])}`, "green");
    } else terminal.line(`Schedule "${id}" fires again, where a worker has its workflow's code.`, "green");
    return 0;
  });
}

async function existing(runtime: Runtime, id: string): Promise<Schedule | undefined> {
  try {
    return await runtime.schedules.get(id);
  } catch (error) {
    if (isError(error, "SCHEDULE_NOT_FOUND")) return undefined;
    throw error;
  }
}

async function trigger(cli: Cli, id: string, { file: path = "", key }: SchedulesOptions): Promise<number> {
  const file = await loadWorkflowFile(path);
  const start = async (runtime: Runtime): Promise<number> => {
    const { spec } = await runtime.schedules.get(id);
    if (!file.workflows.some((workflow) => workflow.id === spec.workflowId))
      throw wrongUse(
        "--file",
        `${path} does not export workflow "${spec.workflowId}", which schedule "${id}" starts`,
        "Name the file that exports it; nothing was started.",
      );
    const { runId } = await runtime.schedules.trigger(id, key === undefined ? {} : { key });
    const next = nextCommand(cli, "run", [path], { id: runId });
    if (cli.json) cli.terminal.json({ id, runId, next });
    else {
      cli.terminal.line(`Run ${runId} of workflow "${spec.workflowId}" is stored; a worker with its code drives it.`, "green");
      cli.terminal.line(`To go on here: ${next}`);
    }
    return 0;
  };
  return reading(cli, start, file);
}

function timetable({ spec: { cron, timezone, everyMs } }: Schedule): string {
  if (cron !== undefined) return `${cron}${timezone === undefined || timezone === "UTC" ? "" : ` (${timezone})`}`;
  return everyMs === undefined ? "" : `every ${span(everyMs)}`;
}

function status({ status: own, paused, running, blocked }: Schedule): string {
  const beside = [
    ...(paused && own === "active" ? ["paused"] : []),
    ...(running ? ["a run is under way"] : []),
    ...(blocked ? [`blocked: ${blocked.code}`] : []),
  ];
  return beside.length > 0 ? `${own}, ${beside.join(", ")}` : own;
}
