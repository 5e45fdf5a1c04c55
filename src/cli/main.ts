#!/usr/bin/env node
// The one file that an old Node must be able to read: no import at its top, no syntax newer than `import()`.
// Everything else is loaded only once this Node is known to be new enough.

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);

if (major < 22 || (major === 22 && minor < 20) || major === 23 || (major === 24 && minor < 7)) {
  console.error(
    `abstractruntime needs Node 22.20, or 24.7 or newer, and this is ${process.versions.node}: install a newer Node and try again.`,
  );
  process.exitCode = 1;
} else {
  import("./cli.ts")
    .then(({ main }) => main(process.argv.slice(2)))
    .then((code) => {
      process.exitCode = code;
      // What a file of the user's has opened, such as a server of tools, does not hold a command that is done. What it printed goes out before.
      process.stdout.write("", () => process.stderr.write("", () => setTimeout(() => process.exit(), 100).unref()));
    });
}
