#!/usr/bin/env node
// The one file that an old Node must be able to read: no import at its top, no syntax newer than `import()`.
// Everything else is loaded only once this Node is known to be new enough.

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);

if (major < 22 || (major === 22 && minor < 18)) {
  console.error(
    `abstractruntime needs Node 22.18 or newer, and this is ${process.versions.node}: install a newer Node and try again.`,
  );
  process.exitCode = 1;
} else {
  import("./cli.ts")
    .then(({ main }) => main(process.argv.slice(2)))
    .then((code) => {
      process.exitCode = code;
    });
}
