/** Trace contexts as the text that W3C defines for them: https://www.w3.org/TR/trace-context/ */
import type { SpanContext } from "@opentelemetry/api";
import type { TraceHeaders } from "../../index.ts";

const form = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;
const zeros = /^0+$/;

/** Nothing for a context that names no span: there is no telemetry then. */
export function headersOf(context: SpanContext | undefined): TraceHeaders {
  if (!context || zeros.test(context.traceId) || zeros.test(context.spanId)) return {};
  const { traceId, spanId, traceFlags, traceState } = context;
  const tracestate = traceState?.serialize();
  const traceparent = `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, "0")}`;
  return tracestate ? { traceparent, tracestate } : { traceparent };
}

/** Undefined for a text that is none. */
export function contextOf(traceparent: string | undefined): SpanContext | undefined {
  const [, traceId = "", spanId = "", flags = ""] = form.exec(traceparent ?? "") ?? [];
  if (traceId === "" || zeros.test(traceId) || zeros.test(spanId)) return undefined;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
}
