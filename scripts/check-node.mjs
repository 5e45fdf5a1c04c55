// Runs before the npm scripts. A plain .mjs file, so that an old Node can read it and say what to do.
// `npm ci` puts a Node of its own into node_modules, which npm scripts then find first.
const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);

if (major < 22 || (major === 22 && minor < 20) || major === 23 || (major === 24 && minor < 7)) {
  console.error(
    `abstractruntime needs Node 22.20, or 24.7 or newer, and this is ${process.versions.node}: run "npm ci", which installs a newer one for this project.`,
  );
  process.exitCode = 1;
}
