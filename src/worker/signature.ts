/**
 * Signatures of callbacks, after Standard Webhooks 1.0 (https://www.standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`, in
 * three headers. Any library for it checks ours, with the secret as raw text.
 */
import { createHmac, timingSafeEqual } from "node:crypto";

const signatureHeaders = ["webhook-id", "webhook-timestamp", "webhook-signature"] as const;

/** How far the clocks of two sides may be apart, and how late a signed request still counts. */
const toleranceMs = 5 * 60_000;

/** @param now Milliseconds since 1970. */
export function sign(secret: string, id: string, body: string, now: number): Record<(typeof signatureHeaders)[number], string> {
  const timestamp = String(Math.floor(now / 1_000));
  return {
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": `v1,${digest(secret, id, timestamp, body).toString("base64")}`,
  };
}

/** Whether who sent this knew the secret, at about this time. */
export function isSigned(secret: string, headers: Headers, body: string, now: number): boolean {
  const [id, timestamp, signatures] = signatureHeaders.map((name) => headers.get(name));
  if (!id || !timestamp || !signatures || !/^\d{1,12}$/.test(timestamp)) return false;
  if (Math.abs(now - Number(timestamp) * 1_000) > toleranceMs) return false;
  const right = digest(secret, id, timestamp, body);
  // Several may stand there, while a secret is being changed.
  return signatures.split(" ").some((signature) => {
    const given = Buffer.from(signature.startsWith("v1,") ? signature.slice(3) : "", "base64");
    return given.length === right.length && timingSafeEqual(given, right);
  });
}

function digest(secret: string, id: string, timestamp: string, body: string): Buffer {
  return createHmac("sha256", secret).update(`${id}.${timestamp}.${body}`).digest();
}
