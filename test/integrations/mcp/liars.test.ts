// Servers that lie about themselves, repeat what they were told in confidence, or do not end.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type McpTools, mcpTools } from "abstractruntime/mcp";
import { describe, expect, test } from "vitest";
import { compiled } from "../../compile-cache.ts";
import { eventually } from "../../eventually.ts";
import { call, resultOf } from "../tools/batch.ts";

const script = join(import.meta.dirname, "liar.ts");
const key = "sk-planted-in-the-environment";
const liar = (lie: string, args: string[] = [], env: Record<string, string> = {}): McpTools =>
  mcpTools({
    name: "liar",
    command: process.execPath,
    args: [script, ...args],
    env: { LIE: lie, API_KEY: key, ...compiled(), ...env },
  });

/** Nobody may have asked yet how a process ended that was orphaned: it is then still listed. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return process.platform !== "linux" || !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

describe("a list of tools", () => {
  test.each([
    ["has no end", "endless", /more than 100 pages/],
    ["is too large, all pages together", "large", /more than 4194304 characters/],
    ["names an artifact that nobody has", "artifact", /tool "work" of its list .* names an artifact/],
    ["has too many levels", "deep", /nested deeper than 100 levels/],
    ["has a key in a name", "name", /tool "work_\[secret\]" of its list .* its name holds a secret/],
  ])("that %s is refused, and its server's calls fail", async (_, lie, problem) => {
    await using tools = liar(lie);
    await expect(tools.tools()).rejects.toMatchObject({ code: "MCP_UNREACHABLE", message: expect.stringMatching(problem) });
    const effect = { policy: { maxAttempts: 1 } };
    expect(await resultOf(tools, call("work"), { effect })).toMatchObject({ error: { code: "MCP_UNREACHABLE" } });
  });

  test("tells models no key", async () => {
    await using tools = liar("description");
    expect(await tools.tools()).toEqual([
      { name: "work", description: "with [secret]", parameters: { type: "object", title: "[secret]" } },
    ]);
    expect(await resultOf(tools, call("work"))).toMatchObject({ success: true });
  });
});

describe("the last words of a server", () => {
  test("hold no part of a key, wherever they are cut", async () => {
    for (const after of [460, 480, 499]) {
      await using tools = liar("usage", [], { AFTER: String(after) });
      const { message } = (await tools.tools().catch((error: unknown) => error)) as Error;
      expect(message).toContain("x".repeat(after));
      for (const part of ["planted", "environment", "ronment", "ment", "nt x"]) expect(message).not.toContain(part);
    }
  });

  test("hold none that it was given on its command line", async () => {
    const args = ["--api-key=sk-planted-1", "--token", "planted two", "db://ann:planted3@host/db", "--keys", "/etc/keys"];
    await using tools = liar("usage", args);
    const { message } = (await tools.tools().catch((error: unknown) => error)) as Error;
    expect(message).toContain("--api-key=[secret] --token [secret] db://ann:[secret]@host/db --keys /etc/keys");
    expect(message).not.toContain("planted");
  });
});

test("an address that is a key itself is not repeated", async () => {
  const { Secrets } = await import("../../../src/integrations/mcp/secrets.ts");
  const secrets = new Secrets({ url: "https://ghp-token-1@host/mcp/s/NmY4Zjk2ODAtYjE0Yi00/mcp" });
  const encoded = new Secrets({ headers: { authorization: "Bearer a/b+c==" } });
  expect(encoded.scrub("?key=a%2Fb%2Bc%3D%3D")).toBe("?key=[secret]");
  expect(secrets.scrub("Cannot POST /mcp/s/NmY4Zjk2ODAtYjE0Yi00/mcp for ghp-token-1")).toBe(
    "Cannot POST /mcp/s/[secret]/mcp for [secret]",
  );
});

test.skipIf(process.platform === "win32")("processes that a server started end with it, the stubborn ones too", async () => {
  const command = `${process.execPath} ${script}; true`;
  const tools = mcpTools({ name: "liar", command: "sh", args: ["-c", command], env: { LIE: "stubborn", ...compiled() } });
  const { output } = await resultOf(tools, call("work"));
  expect(isAlive(Number(output))).toBe(true);
  await tools.close();
  await eventually(() => !isAlive(Number(output)));
});
