/** Addresses that may be called: which are taken, and which of them a list allows. */

/** The address, when it is at or below one that is allowed; otherwise why it is not taken. */
export function allowedAddress(text: string, allowed: readonly string[]): URL | string {
  const url = readAddress(text);
  if (typeof url === "string") return url;
  const isBelow = (above: URL): boolean =>
    url.origin === above.origin && withSlash(url.pathname).startsWith(withSlash(above.pathname));
  return allowed.some((entry) => isBelow(new URL(entry))) ? url : "it is not at or below one of the URLs that are allowed";
}

/** Only what says plainly where it leads; otherwise what is wrong with it. */
export function readAddress(text: string): URL | string {
  const url = typeof text === "string" ? URL.parse(text) : null;
  if (!url) return "it is not a URL";
  if (/[\\\s\p{Cc}]/u.test(text)) return "it has a backslash, a blank or a control character";
  if (url.protocol !== "https:" && url.protocol !== "http:") return "it is neither http nor https";
  if (url.username !== "" || url.password !== "") return "it holds a name or a password";
  // Decoded or cut further on, such a path might lead elsewhere.
  return /%2[ef5]|%5c|;/i.test(url.pathname) ? "its path is encoded, or has a semicolon" : url;
}

/** Whether plain HTTP to it stays on this machine. @param hostname As `URL` gives it. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
}

function withSlash(path: string): string {
  return path.endsWith("/") ? path : `${path}/`;
}
