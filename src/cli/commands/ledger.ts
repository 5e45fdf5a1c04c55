import type { Header, Json, JsonObject, LedgerRecord, Runtime, StoredRecord } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { findRun } from "../find-run.ts";
import { moment } from "../moment.ts";
import { reading } from "../open-runtime.ts";
import { jsonLine } from "../terminal.ts";

export const addLedger: AddCommand = (program, act) => {
  program
    .command("ledger")
    .description("print everything that happened to a run")
    .argument("<run>", "id of the run, or its beginning")
    .addHelpText(
      "after",
      `
With --json one object to a line, {"header", "body", "hash"}: header and body are the exact texts that are stored, and hash is
the SHA-256 of the header's text. A body that was withheld is null.

Examples:
  $ abstractruntime ledger 3f2a
  $ abstractruntime ledger 3f2a --json > 3f2a.jsonl`,
    )
    .action(act(ledger));
};

const pageSize = 1_000;

async function ledger(cli: Cli, given: string): Promise<number> {
  return reading(cli, async (runtime) => {
    const runId = await findRun(runtime, given);
    const unreadable = cli.json ? await printLines(cli, runtime, runId) : await printTable(cli, runtime, runId);
    if (unreadable === 0) return 0;
    cli.terminal.note(`Records that cannot be read: ${unreadable}. See \`${nextCommand(cli, "verify", [runId])}\`.`, "red");
    return 1;
  });
}

async function printLines(cli: Cli, runtime: Runtime, runId: string): Promise<number> {
  for await (const page of pages(cli, runtime, runId)) {
    for (const { header, body, hash } of page) cli.terminal.json({ header, body, hash });
  }
  return 0;
}

async function printTable(cli: Cli, runtime: Runtime, runId: string): Promise<number> {
  let unreadable = 0;
  const types = new Map<string, string>();
  for await (const page of pages(cli, runtime, runId)) {
    const rows = page.map((stored) => {
      const { record, problem } = read(stored);
      if (!record) {
        unreadable += 1;
        return [String(stored.seq), "", "", "", "", "", problem];
      }
      const type = typeOf(record, types);
      const effect =
        record.effectId === undefined
          ? ""
          : `${type ?? "?"} ${record.effectId}${record.attempt === undefined ? "" : `/${record.attempt}`}`;
      return [
        String(record.seq),
        moment(record.at),
        String(record.step),
        record.node,
        record.kind,
        effect,
        problem || summary(record),
      ];
    });
    cli.terminal.table(["SEQ", "AT (UTC)", "STEP", "NODE", "KIND", "EFFECT/ATTEMPT", "WHAT"], rows, [3, 5, 6]);
  }
  return unreadable;
}

async function* pages(cli: Cli, runtime: Runtime, runId: string): AsyncGenerator<StoredRecord[]> {
  const { archivedBefore = 0 } = (await runtime.store.load(runId).catch(() => undefined)) ?? {};
  for (let from = archivedBefore; !cli.terminal.gone; from += pageSize) {
    const page = await runtime.store.records(runId, from, pageSize);
    if (page.length > 0) yield page;
    if (page.length < pageSize) return;
  }
}

/** As far as it can be read: this command is also for looking at what is damaged. */
function read({ header, body }: StoredRecord): { record?: LedgerRecord; problem: string } {
  const head = parsed(header) as unknown as Header | undefined;
  if (!head) return { problem: "(its header is not JSON)" };
  const data = body === null ? {} : parsed(body);
  return {
    record: { ...head, data: data ?? {} } as unknown as LedgerRecord,
    problem: body === null ? "(its body was withheld)" : data ? "" : "(its body is not JSON)",
  };
}

function parsed(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as JsonObject) : undefined;
  } catch {
    return undefined; // Shown as a damaged record.
  }
}

/** Only the record that opens an effect names its type. */
export function typeOf(record: LedgerRecord, types: Map<string, string>): string | undefined {
  if (record.effectId === undefined) return undefined;
  if ((record.kind === "effect_started" || record.kind === "parked") && record.data.intent)
    types.set(record.effectId, record.data.intent.type);
  return types.get(record.effectId);
}

export function summary(record: LedgerRecord): string {
  switch (record.kind) {
    case "run_started":
      return `vars ${short(record.data.vars)}`;
    case "run_restored": {
      const { origin, state } = record.data;
      const from = origin?.kind === "fork" ? `run ${origin.runId} after record ${origin.seq}` : "AbstractRuntime for Python";
      return `goes on from ${from}; vars ${short(state?.vars)}`;
    }
    case "step":
      return `goes to ${record.data.nextNode}${record.data.cleanup ? ", to clean up after the cancel" : ""}`;
    case "effect_started":
      return intentText(record.data.intent) ?? "";
    case "effect_completed":
      return "result" in record.data ? short(record.data.result) : "what its members gave";
    case "effect_failed":
      return `${record.data.error?.message ?? ""}${record.data.interrupted ? " (does not count as an attempt)" : ""}${onward(record.data)}`;
    case "effect_uncertain":
      return `${record.data.reason}${record.data.wait ? "; a person is asked" : ""}${onward(record.data)}`;
    case "parked":
      return `${record.data.started === undefined ? "" : `${record.data.started} begun; `}waits for ${waitText(record.data.wait)}`;
    case "delivered":
      return `${record.data.messageKind} ${short(record.data.payload)}${outcomeText(record.data)}`;
    case "control":
      if (record.data.action === "archived") return `records before ${record.data.before} archived`;
      return `${record.data.action}${record.data.reason === undefined ? "" : `: ${record.data.reason}`}`;
    case "migrated":
      return `version ${record.data.from} to ${record.data.to}`;
    case "undoing":
      return `what was done is undone${record.data.error ? ` after ${errorText(record.data.error)}` : ""}`;
    case "run_completed":
      return short(record.data.output);
    case "run_failed":
      return errorText(record.data.error);
    case "run_cancelled":
      return [record.data.reason, record.data.error && errorText(record.data.error), short(record.data.output)]
        .filter((part) => part)
        .join("; ");
    default:
      // Every kind of this version is known; another one is of a newer version.
      record satisfies never;
      return "";
  }
}

// Bodies may be withheld or damaged, whatever their types say.

type Data<K extends LedgerRecord["kind"]> = Extract<LedgerRecord, { kind: K }>["data"];

function intentText(intent: Data<"effect_started">["intent"]): string | undefined {
  if (!intent) return undefined;
  const payload = short(withPlaces(intent.payload, Array.isArray(intent.refs) ? intent.refs : []));
  return intent.undoes === undefined ? payload : `undoes effect ${intent.undoes}: ${payload}`;
}

/** What stands in the vars is recorded by reference, and shown as where it stands there. */
function withPlaces(payload: Json, refs: readonly { at: string; from: string; range?: [number, number] }[]): Json {
  const root = structuredClone({ payload });
  for (const { at, from, range } of refs) {
    const path = ["payload", ...String(at).split("/").slice(1)].map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
    const last = path.pop() as string;
    const holder = path.reduce<Json | undefined>((value, part) => (value as JsonObject | null | undefined)?.[part], root);
    if (typeof holder === "object" && holder !== null)
      (holder as JsonObject)[last] = `<vars${from}${range ? ` ${range[0]} to ${range[1] - 1}` : ""}>`;
  }
  return root.payload;
}

function waitText(wait: Data<"parked">["wait"] | undefined): string {
  return `${wait?.reason}: ${wait?.prompt ?? wait?.waitKey ?? ""}`;
}

function outcomeText({ outcome, index }: Data<"delivered">): string {
  if (outcome === "result") return "";
  return outcome === "member" ? ` (member ${index})` : ` (${outcome})`;
}

function errorText(error: Data<"run_failed">["error"] | undefined): string {
  const kind = error?.code ?? error?.name ?? "";
  const message = error?.message ?? "";
  return message.startsWith(`${kind}: `) ? message : `${kind}: ${message}`;
}

function onward({ retryAt, nextNode }: { retryAt?: number; nextNode?: string }): string {
  if (retryAt !== undefined) return `; again at ${moment(retryAt)}`;
  return nextNode === undefined ? "" : `; goes to ${nextNode}`;
}

/** The table is for looking; `--json` has everything. */
function short(value: Json | undefined): string {
  const text = value === undefined ? "" : jsonLine(value);
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}
