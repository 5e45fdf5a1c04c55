/** Addresses of servers: which are taken, and which a request may be routed to. */
import { refuse } from "../options.ts";

/** @throws INVALID_OPTION */
export function readBaseUrl(text: string, option: string): URL {
  const url = parse(text);
  if (typeof url === "string") refuse(option, `${option}: ${url}`);
  return url;
}

/**
 * Where `text` has requests routed, when the list allows it: what is at or below one of its URLs. Otherwise, why not. Whoever is sent the
 * route may read URLs in another way, so it is written as it was understood here.
 */
export function routeOf(text: string, allowed: readonly string[]): { route: string } | { problem: string } {
  const url = parse(text);
  if (typeof url === "string") return { problem: url };
  const isBelow = (above: URL): boolean =>
    url.origin === above.origin && withSlash(url.pathname).startsWith(withSlash(above.pathname));
  if (!allowed.some((entry) => isBelow(new URL(entry))))
    return { problem: "it is not at or below one of the URLs that are allowed" };
  return { route: url.origin + (text.endsWith("/") ? url.pathname : url.pathname.replace(/\/$/, "")) };
}

/** Only what says plainly where it leads. */
function parse(text: string): URL | string {
  if (typeof text !== "string" || !URL.canParse(text)) return "it is not a URL";
  if (/[\\\s\p{Cc}]/u.test(text)) return "it has a backslash, a blank or a control character";
  const url = new URL(text);
  if (url.protocol !== "https:" && url.protocol !== "http:") return "it is neither http nor https";
  if (url.username !== "" || url.password !== "") return "it holds a name or a password";
  if (url.search !== "" || url.hash !== "") return "it has a query or a fragment";
  // Decoded or cut further on, such a path might lead elsewhere.
  return /%2[ef5]|%5c|;/i.test(url.pathname) ? "its path is encoded, or has a semicolon" : url;
}

function withSlash(path: string): string {
  return path.endsWith("/") ? path : `${path}/`;
}
