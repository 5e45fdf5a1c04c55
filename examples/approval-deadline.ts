// A person has until a deadline to say yes. When nobody answers, a deputy is asked; when nobody answers again, the work goes on
// without a yes. The deadlines here are a few milliseconds; they could as well be two weeks.
import { any, askUser, complete, createRuntime, defineWorkflow, goto, waitEvent } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { z } from "zod";

const yesOrNo = z.object({ text: z.enum(["yes", "no"]) });

const expense = defineWorkflow({
  id: "expense",
  vars: z.object({ cents: z.number(), timeoutMs: z.number(), said: yesOrNo.optional(), first: z.any().optional() }),
  entry: "manager",
  nodes: {
    // A deadline is recorded as a moment: a restart does not begin it anew. Past it, the run goes to the timeoutNode.
    manager: ({ vars: { cents, timeoutMs } }) =>
      askUser(
        { prompt: `Manager: pay ${cents} cents?`, choices: ["yes", "no"], timeoutMs },
        { resultKey: "said", nextNode: "decide", timeoutNode: "deputy" },
      ),
    // Whoever comes first: the deputy, or the claimant who withdraws. A deadline may stand on a member, too: it then fails
    // that member, and `any` fails when all of them have. `errorNode` takes that.
    deputy: ({ vars: { cents, timeoutMs } }) =>
      any(
        [
          askUser({ prompt: `Deputy: pay ${cents} cents?`, choices: ["yes", "no"], timeoutMs }),
          waitEvent({ key: "withdrawn", timeoutMs }),
        ],
        { resultKey: "first", nextNode: "decide", errorNode: "nobody" },
      ),
    decide: ({ vars: { said, first } }) => {
      if (first?.index === 1) return complete({ paid: false, by: "claimant" });
      const answer = said ?? first?.result;
      return answer?.text === "yes" ? goto("pay") : complete({ paid: false, by: said ? "manager" : "deputy" });
    },
    pay: ({ vars: { said } }) => complete({ paid: true, by: said ? "manager" : "deputy" }),
    nobody: ({ error }) => complete({ paid: false, by: "nobody", why: error?.code }),
  },
});

await using runtime = await createRuntime({ workflows: [expense], store: memoryStore() });
const day = 86_400_000;

const answered = await runtime.run(expense, { vars: { cents: 4_200, timeoutMs: day } });
console.log(answered.waits[0]?.prompt, "until", (answered.waits[0]?.until ?? 0) - (answered.waits[0]?.since ?? 0), "ms later");
await runtime.respond(answered.runId, "yes");
console.log(await runtime.result(answered.runId));

const late = await runtime.start(expense, { vars: { cents: 4_200, timeoutMs: 5 } });
console.log(await runtime.result(late.runId));
