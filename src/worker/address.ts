/** Addresses that may be called: which targets of callbacks a worker takes, and which hosts are this machine. */

/** Whether plain HTTP to it stays on this machine. @param hostname As `URL` gives it. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d{1,3}){3}$/.test(hostname);
}

/**
 * Whether `target` is one of `allowed`, or stands below one of them. An address such as `https://app.example.com/hooks` allows itself and
 * what begins with it and a slash. What is compared is what is called: both as `URL` reads them, without dots in paths.
 */
export function isAllowed(target: string, allowed: readonly string[]): boolean {
  const url = URL.parse(target);
  if (!url || !["http:", "https:"].includes(url.protocol) || url.username !== "" || url.password !== "") return false;
  return allowed.some((one) => {
    const place = URL.parse(one);
    if (!place || place.origin !== url.origin) return false;
    const path = place.pathname.replace(/\/$/, "");
    if (url.pathname === path) return true;
    // A server may take an escaped slash for a slash, and then follow the dots before it.
    return url.pathname.startsWith(`${path}/`) && !/%2f|%5c/i.test(url.pathname.slice(path.length));
  });
}
