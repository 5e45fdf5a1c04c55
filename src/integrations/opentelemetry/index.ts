/** Telemetry by OpenTelemetry: `createRuntime({ telemetry: await openTelemetry() })`. Needs the package `@opentelemetry/api`. */
import type { Meter, Tracer } from "@opentelemetry/api";
import type { Instrument } from "../../index.ts";
import { checkOptions, refuse } from "../options.ts";
import { withoutPeer } from "../peer.ts";
import { schemaUrl } from "./conventions.ts";
import { type Api, OpenTelemetryInstrument, type Redact } from "./instrument.ts";

export { attributes, contentAttributes, type ContentAttribute, gauges, histograms, spanNames } from "./conventions.ts";
export type { Redact } from "./instrument.ts";

export interface OpenTelemetryOptions {
  /** Default: the one that the global tracer provider gives. */
  tracer?: Tracer;
  /** Default: the one that the global meter provider gives, which has to be set before. */
  meter?: Meter;
  /** Whether spans hold what is said to and by models and tools, and messages of errors. Default: false. */
  captureContent?: boolean;
  /** With `captureContent`: is given each value before it is set, and answers with what is set instead, or undefined to leave it out. */
  redact?: Redact;
  /** A run that waits, and to which nothing has come for so long, counts as stuck, in milliseconds. Default: 24 hours. */
  stuckAfterMs?: number;
}

const dayMs = 24 * 60 * 60 * 1000;
const scope = "abstractruntime";

/**
 * For `createRuntime({ telemetry })`. Set up OpenTelemetry's SDK before; what is exported, and where to, is said there.
 *
 * @throws INVALID_OPTION
 */
export async function openTelemetry(options: OpenTelemetryOptions = {}): Promise<Instrument> {
  checkOptions(options, ["tracer", "meter", "captureContent", "redact", "stuckAfterMs"], "openTelemetry()");
  const { captureContent = false, redact = (_, value) => value, stuckAfterMs = dayMs } = options;
  if (typeof captureContent !== "boolean") refuse("captureContent", "captureContent is true or false");
  if (typeof redact !== "function") refuse("redact", "redact is a function of an attribute and its value");
  if (options.redact && !captureContent) refuse("redact", "redact is given and nothing is captured: set captureContent too");
  if (typeof stuckAfterMs !== "number" || !(stuckAfterMs > 0)) refuse("stuckAfterMs", "stuckAfterMs must be a number above 0");
  const api = await loadApi();
  const about = { schemaUrl };
  return new OpenTelemetryInstrument({
    api,
    tracer: options.tracer ?? api.trace.getTracerProvider().getTracer(scope, undefined, about),
    meter: options.meter ?? api.metrics.getMeter(scope, undefined, about),
    stuckAfterMs,
    capture: captureContent ? redact : undefined,
  });
}

async function loadApi(): Promise<Api> {
  try {
    return await import("@opentelemetry/api");
  } catch (cause) {
    throw withoutPeer(cause, ["@opentelemetry/api"], "telemetry", "openTelemetry() speaks to it");
  }
}
