import type { Header, Json, JsonObject, LedgerRecord, Runtime, StoredRecord } from "../index.ts";
import { type AddCommand, type Cli, nextCommand } from "./command.ts";
import { findRun } from "./find-run.ts";
import { moment } from "./moment.ts";
import { reading } from "./open-runtime.ts";
import { jsonLine } from "./terminal.ts";

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
  for (let from = 0; !cli.terminal.gone; from += pageSize) {
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
function typeOf(record: LedgerRecord, types: Map<string, string>): string | undefined {
  if (record.effectId === undefined) return undefined;
  if ((record.kind === "effect_started" || record.kind === "parked") && record.data.intent)
    types.set(record.effectId, record.data.intent.type);
  return types.get(record.effectId);
}

function summary(record: LedgerRecord): string {
  switch (record.kind) {
    case "run_started":
      return `vars ${short(record.data.vars)}`;
    case "step":
      return `goes to ${record.data.nextNode}`;
    case "effect_started":
      return record.data.intent ? short(record.data.intent.payload) : "";
    case "effect_completed":
      return "result" in record.data ? short(record.data.result) : "what its members gave";
    case "effect_failed":
      return `${record.data.error?.message ?? ""}${again(record.data.retryAt)}`;
    case "effect_uncertain":
      return `${record.data.reason}${again(record.data.retryAt)}`;
    case "parked":
      return `waits for ${record.data.wait?.reason}: ${record.data.wait?.prompt ?? record.data.wait?.waitKey ?? ""}`;
    case "delivered":
      return `${record.data.messageKind} ${short(record.data.payload)}${record.data.outcome === "result" ? "" : ` (${record.data.outcome})`}`;
    case "control":
      return `${record.data.action}${record.data.reason === undefined ? "" : `: ${record.data.reason}`}`;
    case "run_completed":
      return short(record.data.output);
    case "run_failed":
      return `${record.data.error?.code ?? record.data.error?.name ?? ""}: ${record.data.error?.message ?? ""}`;
    case "run_cancelled":
      return record.data.reason ?? "";
    default:
      return ""; // A kind of a newer version.
  }
}

function again(retryAt: number | undefined): string {
  return retryAt === undefined ? "" : `; again at ${moment(retryAt)}`;
}

/** The table is for looking; `--json` has everything. */
function short(value: Json | undefined): string {
  const text = value === undefined ? "" : jsonLine(value);
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}
