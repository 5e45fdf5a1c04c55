/**
 * Every name that this package gives to spans, attributes and metrics, and nothing else.
 *
 * Those that begin with `gen_ai.` are of OpenTelemetry's semantic conventions for generative AI, version 1.41.0, the last release that
 * has them: https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai (status: development). They go on in
 * https://github.com/open-telemetry/semantic-conventions-genai, which has released nothing so far.
 */

/** What the names are of. */
export const schemaUrl = "https://opentelemetry.io/schemas/1.41.0";

export const spanNames = {
  drive: (workflowId: string) => `run ${workflowId}`,
  /** Of a workflow that calls models or tools. */
  invokeWorkflow: (workflowId: string) => `invoke_workflow ${workflowId}`,
  step: (node: string) => `step ${node}`,
  attempt: (effectType: string) => `effect ${effectType}`,
  chat: (model: string | undefined) => (model === undefined ? "chat" : `chat ${model}`),
  executeTool: (tool: string) => `execute_tool ${tool}`,
};

/** Values of `gen_ai.operation.name`. */
export const operations = { workflow: "invoke_workflow", chat: "chat", tool: "execute_tool" } as const;

/** Values of `gen_ai.provider.name`, by how the AI SDK's names of providers begin, where these are not the same. */
export const providers: Readonly<Record<string, string>> = {
  "google.vertex": "gcp.vertex_ai",
  "google.generative-ai": "gcp.gemini",
  "amazon-bedrock": "aws.bedrock",
  azure: "azure.ai.openai",
  mistral: "mistral_ai",
  xai: "x_ai",
};

/** The value of `gen_ai.provider.name` when the model call does not tell, and of `error.type` when the error has neither code nor name. */
export const other = "_OTHER";

export const attributes = {
  errorType: "error.type",

  // Runs
  runId: "abstractruntime.run.id",
  parentRunId: "abstractruntime.run.parent_id",
  workflowId: "abstractruntime.workflow.id",
  workflowVersion: "abstractruntime.workflow.version",
  /** Of a run, in metrics. */
  status: "abstractruntime.run.status",
  /** How a drive, a step or an attempt ended. */
  outcome: "abstractruntime.outcome",
  waitReason: "abstractruntime.wait.reason",
  node: "abstractruntime.node",
  step: "abstractruntime.step",
  effectId: "abstractruntime.effect.id",
  effectType: "abstractruntime.effect.type",
  attempt: "abstractruntime.effect.attempt",
  /** Of a link: `resumes`. */
  link: "abstractruntime.link",
  queue: "abstractruntime.queue",
  blockedBy: "abstractruntime.blocked.by",

  // Generative AI
  operation: "gen_ai.operation.name",
  provider: "gen_ai.provider.name",
  conversationId: "gen_ai.conversation.id",
  workflowName: "gen_ai.workflow.name",
  outputType: "gen_ai.output.type",
  requestModel: "gen_ai.request.model",
  temperature: "gen_ai.request.temperature",
  maxTokens: "gen_ai.request.max_tokens",
  topP: "gen_ai.request.top_p",
  topK: "gen_ai.request.top_k",
  seed: "gen_ai.request.seed",
  stopSequences: "gen_ai.request.stop_sequences",
  frequencyPenalty: "gen_ai.request.frequency_penalty",
  presencePenalty: "gen_ai.request.presence_penalty",
  responseModel: "gen_ai.response.model",
  finishReasons: "gen_ai.response.finish_reasons",
  inputTokens: "gen_ai.usage.input_tokens",
  outputTokens: "gen_ai.usage.output_tokens",
  cachedInputTokens: "gen_ai.usage.cache_read.input_tokens",
  reasoningTokens: "gen_ai.usage.reasoning.output_tokens",
  tokenType: "gen_ai.token.type",
  toolName: "gen_ai.tool.name",
  toolType: "gen_ai.tool.type",
  toolCallId: "gen_ai.tool.call.id",
} as const;

/** Attributes that hold what users, models and tools say: set only with `captureContent`. */
export const contentAttributes = {
  inputMessages: "gen_ai.input.messages",
  outputMessages: "gen_ai.output.messages",
  systemInstructions: "gen_ai.system_instructions",
  toolDefinitions: "gen_ai.tool.definitions",
  toolArguments: "gen_ai.tool.call.arguments",
  toolResult: "gen_ai.tool.call.result",
  /** Stands as the span's status message. */
  errorMessage: "exception.message",
} as const;

export type ContentAttribute = (typeof contentAttributes)[keyof typeof contentAttributes];

/** Histograms; boundaries as the conventions advise for those of theirs. */
export const histograms = {
  stepDuration: {
    name: "abstractruntime.step.duration",
    unit: "s",
    description: "How long a node and what it requested kept a run busy in this process",
    boundaries: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300],
  },
  commitSize: {
    name: "abstractruntime.commit.records",
    unit: "{record}",
    description: "Records that one commit of a run made durable",
    boundaries: [1, 2, 4, 8, 16, 32, 64, 128, 256],
  },
  modelDuration: {
    name: "gen_ai.client.operation.duration",
    unit: "s",
    description: "Duration of attempts of model calls",
    boundaries: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92],
  },
  tokenUsage: {
    name: "gen_ai.client.token.usage",
    unit: "{token}",
    description: "Tokens that model calls took and gave",
    boundaries: [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864],
  },
};

/** Asked of the store when metrics are collected: they say the same in every process over it. */
export const gauges = {
  runs: { name: "abstractruntime.runs", unit: "{run}", description: "Runs in the store, by status" },
  queueAge: {
    name: "abstractruntime.queue.age",
    unit: "s",
    description: "For how long the first of the runs that are due and held by nobody has been due",
  },
  stuckWaits: {
    name: "abstractruntime.waits.stuck",
    unit: "{run}",
    description: "Runs that wait and to which nothing has come for longer than `stuckAfterMs`, by what they wait for",
  },
  blocked: {
    name: "abstractruntime.runs.blocked",
    unit: "{run}",
    description: "Runs that no worker can go on with: for want of code, or because they are damaged",
  },
};
