/** Addresses of servers: which are taken, and which a request may be routed to. */
import { allowedAddress, readAddress } from "../address.ts";
import { refuse } from "../options.ts";

/** @throws INVALID_OPTION */
export function readBaseUrl(text: string, option: string): URL {
  const url = base(readAddress(text));
  if (typeof url === "string") refuse(option, `${option}: ${url}`);
  return url;
}

/**
 * Where `text` has requests routed, when the list allows it: what is at or below one of its URLs. Otherwise, why not. Whoever is sent the
 * route may read URLs in another way, so it is written as it was understood here.
 */
export function routeOf(text: string, allowed: readonly string[]): { route: string } | { problem: string } {
  const url = base(allowedAddress(text, allowed));
  if (typeof url === "string") return { problem: url };
  return { route: url.origin + (text.endsWith("/") ? url.pathname : url.pathname.replace(/\/$/, "")) };
}

function base(url: URL | string): URL | string {
  return typeof url !== "string" && (url.search !== "" || url.hash !== "") ? "it has a query or a fragment" : url;
}
