/** The server's clock, unless the store was given another: its now is then a parameter. */
export const serverNow = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/** @param place Of the parameter; null there asks for the server's clock. */
export function momentOr(place: string): string {
  return `coalesce(${place}, ${serverNow})`;
}
