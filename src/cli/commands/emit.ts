import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { reading } from "../open-runtime.ts";
import { eventPayload } from "../payload.ts";

interface EmitOptions {
  id?: string;
  workflow?: string;
}

export const addEmit: AddCommand = (program, act) => {
  program
    .command("emit")
    .description("send an event to every run that waits for it now")
    .argument("<key>", "name of the event")
    .argument("[payload]", "JSON, or text (default: null)")
    .option("--id <id>", "stands for this event: sent again, each run still takes it once (default: a new one)")
    .option("--workflow <id>", "only to runs of this workflow")
    .addHelpText(
      "after",
      `
It is not kept for runs that wait for it later: \`signal\` is, for one run.

Examples:
  $ abstractruntime emit market-open
  $ abstractruntime emit rate '{"eur":1.08}' --workflow order --id rate-2026-11-22`,
    )
    .action(act(emit));
};

async function emit(cli: Cli, key: string, typed: string | undefined, { id, workflow }: EmitOptions): Promise<number> {
  const payload = eventPayload(typed);
  const reached = await reading(cli, (runtime) =>
    runtime.emit(key, payload, {
      ...(id === undefined ? {} : { id }),
      ...(workflow === undefined ? {} : { workflowId: workflow }),
    }),
  );
  if (cli.json) cli.terminal.json({ key, reached });
  else if (reached > 0) {
    const runs = reached === 1 ? "1 run that waits" : `${reached} runs that wait`;
    cli.terminal.line(`The event "${key}" is stored for ${runs} for it. Workers with their code go on with them.`, "green");
  } else {
    cli.terminal.note(
      `No run waits for the event "${key}" now. See what runs wait for with \`${nextCommand(cli, "ls", [], { status: "waiting" })}\`.`,
    );
  }
  return 0;
}
