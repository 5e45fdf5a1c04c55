/** Workflow files: plain modules that export what `defineWorkflow` made, loaded by Node itself. */
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, extname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import {
  AbstractRuntimeError,
  type AnyEffect,
  type Instrument,
  isError,
  type QueueLimits,
  type Workflow,
  nearest,
} from "../index.ts";
import { Advised, wrongUse } from "./problem.ts";

export interface WorkflowFile {
  /** As the user wrote it. */
  path: string;
  /** The default export first, each once. */
  workflows: readonly Workflow[];
  default?: Workflow;
  /** The queues that are served here, with their limits: what the module exports as `queues`. */
  queues?: Readonly<Record<string, QueueLimits>>;
  /** Handlers for all workflows, such as those of models and tools: what the module exports as `effects`. */
  effects: readonly AnyEffect[];
  /** Who is told of what is driven here: what the module exports as `telemetry`. */
  telemetry?: Instrument;
}

const extensions = [".ts", ".mts", ".js", ".mjs", ".cts", ".cjs"];

/** @throws FILE_INVALID */
export async function loadWorkflowFile(path: string): Promise<WorkflowFile> {
  const exported = await loadModule(path);
  const main = isWorkflow(exported.default) ? exported.default : undefined;
  const workflows = [...new Set([...(main ? [main] : []), ...Object.values(exported).filter(isWorkflow)])];
  if (workflows.length === 0) {
    throw new AbstractRuntimeError("FILE_INVALID", {
      file: path,
      problem: `it exports no workflow (it exports: ${Object.keys(exported).join(", ") || "nothing"})`,
    });
  }
  const { queues, effects = [], telemetry } = exported;
  if (!Array.isArray(effects))
    throw new Advised(
      new AbstractRuntimeError("FILE_INVALID", { file: path, problem: "its export effects is not a list of effects" }),
      "Export a list, such as: export const effects = [llmEffect(client)].",
    );
  return {
    path,
    workflows,
    ...(main ? { default: main } : {}),
    // The rest is checked by createRuntime.
    effects,
    ...(telemetry === undefined ? {} : { telemetry: telemetry as Instrument }),
    ...(queues === undefined ? {} : { queues: queues as NonNullable<WorkflowFile["queues"]> }),
  };
}

/** Files may import the same handler from one place. */
export function effectsOf(files: readonly WorkflowFile[]): AnyEffect[] {
  return [...new Set(files.flatMap(({ effects }) => effects))];
}

/** What a module exports. @throws FILE_INVALID */
export async function loadModule(path: string): Promise<Record<string, unknown>> {
  const file = resolve(path);
  checkReadable(path, file);
  return load(path, file);
}

/** The workflow named, or the one that goes without saying: the default export, or the only one. */
export function chooseWorkflow({ path, workflows, default: main }: WorkflowFile, id: string | undefined): Workflow {
  const ids = workflows.map((workflow) => workflow.id);
  const [first, another] = workflows;
  if (id === undefined) {
    const chosen = main ?? (another ? undefined : first);
    if (chosen) return chosen;
    throw wrongUse(
      "--workflow",
      `${path} exports several workflows: ${ids.join(", ")}`,
      "Choose one with --workflow ID, or export it as default.",
    );
  }
  const named = workflows.find((workflow) => workflow.id === id);
  if (named) return named;
  const suggestion = nearest(id, ids);
  throw wrongUse(
    "--workflow",
    `${path} exports no workflow "${id}" (it exports: ${ids.join(", ")})`,
    suggestion ? `Did you mean "${suggestion}"?` : "Name one that it exports, or leave --workflow out.",
  );
}

function checkReadable(path: string, file: string): void {
  const refuse = (problem: string, hint: string): never => {
    throw new Advised(new AbstractRuntimeError("FILE_INVALID", { file: path, problem }), hint);
  };
  const found = statSync(file, { throwIfNoEntry: false });
  if (!found) {
    const suggestion = nearest(basename(file), siblings(file));
    return refuse(
      "there is no such file",
      suggestion ? `Did you mean "${suggestion}"?` : "Check the path; it is taken from the current directory.",
    );
  }
  if (!found.isFile()) return refuse("it is not a file", "Name the file that exports the workflow.");
  if (!extensions.includes(extname(file)))
    return refuse(`Node loads no "${extname(file)}" file as a module`, `Name a file that ends in ${extensions.join(", ")}.`);
}

function siblings(file: string): string[] {
  try {
    return readdirSync(dirname(file));
  } catch {
    return []; // No directory, no suggestion.
  }
}

async function load(path: string, file: string): Promise<Record<string, unknown>> {
  // A top-level await that never settles would end the process without a word, since nothing else keeps it alive.
  const unsettled = Promise.withResolvers<never>();
  const never = (): void => {
    const error = new AbstractRuntimeError("FILE_INVALID", { file: path, problem: "a top-level await in it never settles" });
    unsettled.reject(new Advised(error, "Take that await out of the file, or let it settle."));
  };
  process.once("beforeExit", never);
  try {
    return (await Promise.race([import(pathToFileURL(file).href), unsettled.promise])) as Record<string, unknown>;
  } catch (error) {
    if (error instanceof Advised) throw error;
    const { problem, hint } = loadProblem(error);
    throw new Advised(new AbstractRuntimeError("FILE_INVALID", { file: path, problem }, error), hint);
  } finally {
    process.off("beforeExit", never);
  }
}

function loadProblem(error: unknown): { problem: string; hint: string } {
  if (!(error instanceof Error)) return { problem: `it threw ${inspect(error)} when it was loaded`, hint: "Mend the file." };
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "ERR_MODULE_NOT_FOUND" || code === "MODULE_NOT_FOUND") {
    return {
      problem: error.message,
      hint: "Install the package that it imports (`npm install NAME`), or correct the path; relative imports need their ending, such as ./steps.ts.",
    };
  }
  const place = placeOf(error);
  const problem = `${isError(error) ? "" : `${error.name}: `}${error.message}${place ? ` (${place})` : ""}`;
  return {
    problem,
    hint:
      error instanceof SyntaxError && !place
        ? "Mend the file; `node --check` on it shows the place."
        : "Mend the file; --debug shows the stack.",
  };
}

/** Node writes the place of a syntax error above its stack; otherwise it is the first line of the stack that names a file. */
function placeOf({ stack = "" }: Error): string | undefined {
  return (/^(?:file:|\/|[A-Z]:).*:\d+$/.exec(stack.split("\n", 1)[0] ?? "") ??
    /(?<=\()file:[^)]+:\d+|(?<=at )file:.+:\d+/.exec(stack))?.[0];
}

/** By its shape, since the file may import another copy of this package. */
function isWorkflow(value: unknown): value is Workflow {
  if (typeof value !== "object" || value === null) return false;
  const { id, nodes, edges } = value as Partial<Workflow>;
  return typeof id === "string" && nodes instanceof Map && typeof edges === "function";
}
