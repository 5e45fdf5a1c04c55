import { parseJson, AbstractRuntimeError, isError, type Run, type Runtime } from "../../index.ts";
import { ask, askWhich } from "../ask.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { driveHere } from "../drive-here.ts";
import { explain, type Wait } from "../explain.ts";
import { findRun } from "../find-run.ts";
import { openRuntime, requireStore } from "../open-runtime.ts";
import { Advised, problemOf, tell, wrongUse } from "../problem.ts";
import { payloadOf, questionsOf } from "../question.ts";
import { loadWorkflowFile, type WorkflowFile } from "../workflow-file.ts";

interface RespondOptions {
  jsonAnswer?: string;
  key?: string;
  file?: string;
}

/** What was answered where, or undefined when the person did not want to. */
type Answered = { runId: string; waitKey: string; workflowId: string } | undefined;

export const addRespond: AddCommand = (program, act) => {
  program
    .command("respond")
    .description("answer what a run waits for; without ANSWER, ask for it here")
    .argument("<run>", "id of the run, or its beginning")
    .argument("[answer]", 'text, which becomes {"text": ...}, or a JSON object')
    .option("--json-answer <json>", "the answer as JSON of any kind")
    .option("--key <wait-key>", "which wait, where several are open")
    .option("--file <file>", "workflow file, to drive the run on here")
    .addHelpText(
      "after",
      `
An answer that does not fit is refused, and the run waits on. The first answer to a question stands.
Without --file the answer is stored, and the next worker with the workflow's code goes on with the run.

Examples:
  $ abstractruntime respond 3f2a
  $ abstractruntime respond 3f2a yes --file approval.ts
  $ abstractruntime respond 3f2a --json-answer '{"retry":true}'`,
    )
    .action(act(respond));
};

async function respond(cli: Cli, given: string, answer: string | undefined, options: RespondOptions): Promise<number> {
  const payload = givenPayload(answer, options.jsonAnswer);
  if (!payload && (cli.json || !cli.terminal.io.isTTY)) {
    throw wrongUse(
      "ANSWER",
      "there is no ANSWER, and no terminal to ask in",
      `Write it behind the run: \`abstractruntime respond ${given} ANSWER\`; \`abstractruntime why ${given}\` shows the question.`,
    );
  }
  await requireStore(cli);
  const file = options.file === undefined ? undefined : await loadWorkflowFile(options.file);
  if (file) return respondAndDrive(cli, given, payload, options.key, file);
  const runtime = await openRuntime(cli, { scheduler: false });
  try {
    const answered = await deliver(cli, runtime, await findRun(runtime, given), payload, options.key);
    if (!answered) return unanswered(cli);
    const { runId, workflowId } = answered;
    const next = nextCommand(cli, "run", ["FILE"], { id: runId });
    if (cli.json) {
      cli.terminal.json({ ...answered, next });
    } else {
      cli.terminal.line(
        `The answer is stored. A worker with the code of workflow "${workflowId}" goes on with run ${runId}.`,
        "green",
      );
      cli.terminal.line(`To go on here: ${next}`);
    }
    return 0;
  } finally {
    await runtime.stop();
  }
}

/** Thrown through `driveHere` when nothing was answered, so that nothing is driven. */
class Unanswered extends Error {}

async function respondAndDrive(
  cli: Cli,
  given: string,
  payload: Typed | undefined,
  key: string | undefined,
  file: WorkflowFile,
): Promise<number> {
  try {
    return await driveHere(cli, file, {}, async (runtime) => {
      const runId = await findRun(runtime, given);
      const { workflowId } = await runtime.get(runId);
      if (!file.workflows.some(({ id }) => id === workflowId)) {
        throw wrongUse(
          "--file",
          `${file.path} does not export workflow "${workflowId}", which run ${runId} is one of`,
          "Name the file that exports it, or leave --file out; nothing was answered.",
        );
      }
      if (!(await deliver(cli, runtime, runId, payload, key))) throw new Unanswered();
      return runId;
    });
  } catch (error) {
    if (error instanceof Unanswered) return unanswered(cli);
    throw error;
  }
}

function unanswered(cli: Cli): number {
  cli.terminal.note("No answer was given; the run waits on.");
  return 130;
}

async function deliver(
  cli: Cli,
  runtime: Runtime,
  runId: string,
  given: Typed | undefined,
  key: string | undefined,
): Promise<Answered> {
  const run = await runtime.get(runId);
  const wait = await chooseWait(cli, runtime, run, key, given === undefined);
  if (!wait) return undefined;
  for (;;) {
    const answer = given
      ? { payload: given.text === undefined ? given.json : payloadOf(given.text, wait) }
      : await ask(cli.terminal, wait);
    if (!answer) return undefined;
    try {
      // Under its key, so that the answer reaches the very question that was looked at.
      await runtime.resume(runId, { waitKey: wait.waitKey, payload: answer.payload });
      return { runId, waitKey: wait.waitKey, workflowId: run.workflowId };
    } catch (error) {
      if (given || !isError(error, "ANSWER_INVALID")) throw error;
      tell(cli.terminal, problemOf(error), false);
    }
  }
}

/** @throws NOT_WAITING, ALREADY_ANSWERED, WAIT_KEY_MISMATCH, WAIT_AMBIGUOUS */
async function chooseWait(
  cli: Cli,
  runtime: Runtime,
  run: Run,
  key: string | undefined,
  asking: boolean,
): Promise<Wait | undefined> {
  const { runId, status } = run;
  const open = questionsOf(run);
  const wait = key === undefined ? open[0] : run.waits.find(({ waitKey }) => waitKey === key);
  if (wait && key === undefined && open.length > 1) {
    if (asking) return askWhich(cli.terminal, open);
    throw new AbstractRuntimeError("WAIT_AMBIGUOUS", { runId, open: open.map(({ waitKey }) => waitKey) });
  }
  if (wait) return wait;
  const refusal = new AbstractRuntimeError("NOT_WAITING", { runId, status });
  if (key === undefined && run.waits.length > 0) {
    // It waits for a moment or for a child, which may have the question.
    const { next } = await explain(cli, runtime, runId);
    throw new Advised(refusal, `It waits for something else. Next: ${next.join("; ")}`);
  }
  // Nothing waits under this key, so this says why: without an answer it never reaches a wait.
  await (key === undefined ? runtime.respond(runId, undefined) : runtime.resume(runId, { waitKey: key }));
  throw refusal;
}

interface Typed {
  /** As text whose meaning depends on the wait. */
  text?: string;
  json?: unknown;
}

function givenPayload(answer: string | undefined, jsonAnswer: string | undefined): Typed | undefined {
  if (answer !== undefined && jsonAnswer !== undefined)
    throw wrongUse("--json-answer", "there are two answers, ANSWER and --json-answer", "Give one of them.");
  if (jsonAnswer === undefined) return answer === undefined ? undefined : { text: answer };
  try {
    return { json: parseJson(jsonAnswer) };
  } catch (error) {
    throw wrongUse(
      "--json-answer",
      `--json-answer is not JSON: ${(error as Error).message}`,
      `Write it as one word for the shell: --json-answer '{"retry":true}'.`,
    );
  }
}
