// A thin client: this process has neither the model nor the tools, only the run. The model is a server that speaks OpenAI's language,
// the tools are those of a worker. Here both are started beside it; in earnest they are elsewhere, the worker as
// `abstractruntime tool-worker FILE --port 8787`, with its jobs in a file.
import { createRemoteRuntime, remoteLlm } from "abstractruntime/llm";
import { memoryStore } from "abstractruntime/memory";
import { remoteTools, serveToolWorker } from "abstractruntime/worker";
import { modelServer } from "./agent/model-server.ts";
import { talk } from "./agent/terminal.ts";
import { travelScript, travelTools } from "./agent/travel.ts";
import { agent } from "./agent.ts";

await using models = await modelServer(travelScript, "secret of the model");
await using worker = await serveToolWorker({ tools: travelTools, token: "secret of the worker", store: memoryStore() });

// Secrets are given to who needs them, as functions. They reach no record, no log and no error.
const llm = remoteLlm({ baseUrl: models.url, model: "scripted", apiKey: () => "secret of the model" });
const tools = remoteTools({ url: worker.url, token: () => "secret of the worker", pollMs: 100 });

await using runtime = await createRemoteRuntime({ workflows: [agent], store: memoryStore(), llm, tools });
const messages = [{ role: "user" as const, content: "How will the weather be in Lyon on Saturday?" }];
// The very graph of agent.ts. While a tool runs at the worker, its run is a row that waits.
const { runId } = await runtime.start(agent, { vars: { messages, tools: await tools.tools() } });
await Promise.all([talk(runtime, runId), runtime.result(runId)]);
