// A receiver of OTLP over HTTP, as collectors are: what the real exporters of OpenTelemetry's SDK send as JSON is read and kept.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { context, type Meter, type Tracer } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { BatchSpanProcessor, type Sampler, TracerProvider } from "@opentelemetry/sdk-trace";

type Values = Record<string, unknown>;

export interface ReceivedSpan {
  name: string;
  traceId: string;
  spanId: string;
  parentSpanId: string | undefined;
  /** 1 internal, 2 server, 3 client, 4 producer, 5 consumer. */
  kind: number;
  attributes: Values;
  links: { traceId: string; spanId: string; attributes: Values }[];
  /** 0 unset, 1 ok, 2 error. */
  status: { code: number; message?: string };
}

export interface ReceivedPoint {
  attributes: Values;
  value: number;
  count: number;
  sum: number;
}

export interface Telemetry extends AsyncDisposable {
  tracer: Tracer;
  meter: Meter;
  /** What has come in after all that was told so far has been exported. */
  spans(): Promise<ReceivedSpan[]>;
  /** The last points of a metric. */
  points(name: string): Promise<ReceivedPoint[]>;
  /** Everything that came in, as it came. */
  readonly raw: string;
  /** What is sent from now on is answered so. */
  answer(status: number): void;
}

export async function startTelemetry(options: { sampler?: Sampler } = {}): Promise<Telemetry> {
  let status = 200;
  let raw = "";
  const bodies: Record<string, any[]> = {}; // any: what comes in has the form of OTLP
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      if (status === 200) {
        raw += text;
        bodies[request.url as string] = [...(bodies[request.url as string] ?? []), JSON.parse(text)];
      }
      response.writeHead(status, { "content-type": "application/json" }).end("{}");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  const traces = new TracerProvider({
    ...options,
    spanProcessors: [new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url: `${url}/v1/traces` }) })],
  });
  const reader = new PeriodicExportingMetricReader({
    exporter: new OTLPMetricExporter({ url: `${url}/v1/metrics` }),
    exportIntervalMillis: 3_600_000,
  });
  const meters = new MeterProvider({ readers: [reader] });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());

  return {
    tracer: traces.getTracer("test"),
    meter: meters.getMeter("test"),
    async spans() {
      await traces.forceFlush();
      return (bodies["/v1/traces"] ?? []).flatMap((body) =>
        body.resourceSpans.flatMap(({ scopeSpans }: any) => scopeSpans.flatMap(({ spans }: any) => spans.map(spanOf))),
      );
    },
    async points(name) {
      await reader.forceFlush();
      const metrics = bodies["/v1/metrics"]
        ?.at(-1)
        .resourceMetrics.flatMap(({ scopeMetrics }: any) => scopeMetrics.flatMap(({ metrics: given }: any) => given));
      const metric = metrics?.find((given: any) => given.name === name);
      return ((metric?.gauge ?? metric?.histogram)?.dataPoints ?? []).map(pointOf);
    },
    get raw() {
      return raw;
    },
    answer(given) {
      status = given;
    },
    async [Symbol.asyncDispose]() {
      context.disable();
      await Promise.allSettled([traces.shutdown(), meters.shutdown()]);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

// any: OTLP as JSON, which the SDK's own exporter wrote
function spanOf({ name, traceId, spanId, parentSpanId, kind, attributes, links, status }: any): ReceivedSpan {
  return {
    name,
    traceId,
    spanId,
    parentSpanId: parentSpanId || undefined,
    kind,
    attributes: valuesOf(attributes),
    links: (links ?? []).map((link: any) => ({
      traceId: link.traceId,
      spanId: link.spanId,
      attributes: valuesOf(link.attributes),
    })),
    status: { code: status?.code ?? 0, ...(status?.message === undefined ? {} : { message: status.message }) },
  };
}

function pointOf({ attributes, asInt, asDouble, count, sum }: any): ReceivedPoint {
  return { attributes: valuesOf(attributes), value: Number(asInt ?? asDouble), count: Number(count), sum };
}

function valuesOf(attributes: any[] = []): Values {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, read(value)]));
}

function read({ stringValue, intValue, doubleValue, boolValue, arrayValue }: any): unknown {
  if (arrayValue) return arrayValue.values.map(read);
  return stringValue ?? (intValue === undefined ? (doubleValue ?? boolValue) : Number(intValue));
}
