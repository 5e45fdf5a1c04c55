/**
 * Spans. A run may go on for months and in many processes, so each drive has a span of its own: the first is a child of what started
 * the run, and each later one begins a trace of its own, with a link to the one before. Below a drive stand its steps, and below
 * these the attempts of their effects.
 */
import type { Attributes, Context, Link, Meter, Span, SpanKind, Tracer } from "@opentelemetry/api";
import type { Activity, Ending, Instrument, StoreState, Traced, TracedRun, TraceHeaders } from "../../index.ts";
import { type Shown, shownAttempt } from "./attempt-attributes.ts";
import { contextOf, headersOf } from "./context.ts";
import { attributes as a, type ContentAttribute, contentAttributes, operations, other, spanNames } from "./conventions.ts";
import { Metrics } from "./metrics.ts";

export type Api = typeof import("@opentelemetry/api");

/** Changes what is captured, or leaves it out by answering undefined. */
export type Redact = (attribute: ContentAttribute, value: unknown) => unknown;

export interface Telling {
  api: Api;
  tracer: Tracer;
  meter: Meter;
  stuckAfterMs: number;
  /** Undefined: no content is captured. */
  capture: Redact | undefined;
}

export class OpenTelemetryInstrument implements Instrument {
  readonly #telling: Telling;
  readonly #metrics: Metrics;

  constructor(telling: Telling) {
    this.#telling = telling;
    this.#metrics = new Metrics(telling.meter, telling.stuckAfterMs);
  }

  here(): TraceHeaders {
    const { trace, context } = this.#telling.api;
    return headersOf(trace.getSpanContext(context.active()));
  }

  begin(what: Activity, within?: Traced): Traced {
    const { api, tracer } = this.#telling;
    const { ROOT_CONTEXT, SpanKind: kinds, trace } = api;
    const parent = (within as TracedSpan | undefined)?.context ?? ROOT_CONTEXT;
    const start = (name: string, kind: SpanKind, attributes: Attributes, context: Context, links: Link[] = []): Span =>
      tracer.startSpan(name, { kind, attributes: defined({ [a.runId]: what.run.runId, ...attributes }), links }, context);
    const traced = (span: Span, context: Context, shown?: Shown): Traced =>
      new TracedSpan(span, trace.setSpan(context, span), what, this.#telling, this.#metrics, shown);

    if (what.kind === "drive") {
      const origin = contextOf(what.trace);
      const context = origin && what.isFirst ? trace.setSpanContext(ROOT_CONTEXT, origin) : ROOT_CONTEXT;
      const links = origin && !what.isFirst ? [{ context: origin, attributes: { [a.link]: "resumes" } }] : [];
      const [name, attributes] = runOf(what.run);
      return traced(start(name, kinds.INTERNAL, attributes, context, links), context);
    }
    if (what.kind === "step") {
      const attributes = { [a.node]: what.node, [a.step]: what.step };
      return traced(start(spanNames.step(what.node), kinds.INTERNAL, attributes, parent), parent);
    }
    const { effectId, effectType, attempt, run } = what;
    const shown = shownAttempt(effectType, what.payload);
    const attributes = {
      [a.effectId]: effectId,
      [a.effectType]: effectType,
      [a.attempt]: attempt,
      ...(shown ? { ...shown.before, [a.conversationId]: run.sessionId } : {}),
    };
    const kind = effectType === "llm_call" ? kinds.CLIENT : startsRuns.includes(effectType) ? kinds.PRODUCER : kinds.INTERNAL;
    return traced(start(shown?.name ?? spanNames.attempt(effectType), kind, attributes, parent), parent, shown);
  }

  committed(records: number): void {
    this.#metrics.committed(records);
  }

  watch(state: StoreState): () => void {
    return this.#metrics.watch(state);
  }
}

const startsRuns = ["start_subworkflow", "fan_out"];
const callsModels = ["llm_call", "tool_call"];

function runOf({ workflowId, version, parentRunId, sessionId, effectTypes }: TracedRun): [name: string, Attributes] {
  const attributes = { [a.workflowId]: workflowId, [a.workflowVersion]: version, [a.parentRunId]: parentRunId };
  if (!effectTypes.some((type) => callsModels.includes(type))) return [spanNames.drive(workflowId), attributes];
  return [
    spanNames.invokeWorkflow(workflowId),
    { ...attributes, [a.operation]: operations.workflow, [a.workflowName]: workflowId, [a.conversationId]: sessionId },
  ];
}

class TracedSpan implements Traced {
  /** In which this is the active span. */
  readonly context: Context;
  readonly #span: Span;
  readonly #what: Activity;
  readonly #telling: Telling;
  readonly #metrics: Metrics;
  readonly #shown: Shown | undefined;
  readonly #since = performance.now();

  constructor(span: Span, context: Context, what: Activity, telling: Telling, metrics: Metrics, shown: Shown | undefined) {
    this.#span = span;
    this.context = context;
    this.#what = what;
    this.#telling = telling;
    this.#metrics = metrics;
    this.#shown = shown;
  }

  headers(): TraceHeaders {
    return headersOf(this.#span.spanContext());
  }

  within<T>(action: () => T): T {
    return this.#telling.api.context.with(this.context, action);
  }

  end(how: Ending): void {
    try {
      const said = this.#say(how);
      this.#measure(how, said);
      if (this.#telling.capture && this.#span.isRecording()) this.#capture(how, this.#telling.capture);
    } finally {
      this.#span.end();
    }
  }

  /** Sets how it ended, and answers with that. */
  #say({ outcome, error, result, waitReason }: Ending): Attributes {
    const errorType = error ? error.code || error.name : result === undefined ? undefined : this.#shown?.errorType?.(result);
    const said = defined({
      [a.outcome]: outcome,
      [a.waitReason]: waitReason,
      ...(result === undefined ? {} : this.#shown?.after(result)),
      ...(error ? this.#shown?.afterFailure?.(error) : {}),
      [a.errorType]: errorType === undefined ? undefined : isName.test(errorType) ? errorType : other,
    });
    this.#span.setAttributes(said);
    if (errorType !== undefined) this.#span.setStatus({ code: this.#telling.api.SpanStatusCode.ERROR });
    return said;
  }

  #measure({ outcome }: Ending, said: Attributes): void {
    const what = this.#what;
    const seconds = (performance.now() - this.#since) / 1000;
    if (what.kind === "step") {
      const { workflowId } = what.run;
      this.#metrics.step(seconds, { [a.workflowId]: workflowId, [a.node]: what.node, [a.outcome]: outcome });
      // One that waits has asked no model: there was no room for it in a budget.
    } else if (what.kind === "attempt" && what.effectType === "llm_call" && outcome !== "waiting")
      this.#metrics.modelCall(seconds, { ...this.#shown?.before, ...said });
  }

  #capture({ error, result }: Ending, redact: Redact): void {
    const textOf = (attribute: ContentAttribute, value: unknown): string | undefined => {
      const shown = redact(attribute, value);
      return typeof shown === "string" ? shown : JSON.stringify(shown);
    };
    for (const [attribute, value] of Object.entries(this.#shown?.content(result) ?? {})) {
      const text = textOf(attribute as ContentAttribute, value);
      if (text !== undefined) this.#span.setAttribute(attribute, text);
    }
    const message = error && textOf(contentAttributes.errorMessage, error.message);
    if (message !== undefined) this.#span.setStatus({ code: this.#telling.api.SpanStatusCode.ERROR, message });
  }
}

/** Whoever throws chooses code and name: what reads like a sentence may be what was said. */
const isName = /^[\w.:/-]{1,100}$/;

function defined(attributes: Attributes): Attributes {
  return Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined));
}
