// Builds every view into one ES module and one style sheet of its own, into the Python package.
//
// Nothing is written before everything was built and measured, so a failure leaves what was there. The result depends on
// the sources and the lock file alone: building twice gives the same bytes.
import { readdir, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { deflateSync } from "node:zlib";
import { build } from "esbuild";
import { stylesFor } from "./styles.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const OUT = fileURLToPath(new URL("../hooklab/views/static/", import.meta.url));
const MOST = 30 * 1024; // each instance of a widget carries its module, deflated, and a saved notebook keeps it
const OUTSIDE = /\bimport\(?\s*["']https?:|\bfetch\(["']https?:|@import\s+(?:url\()?["']?https?:/;

const views = (await readdir(`${HERE}src/views`))
  .filter((name) => /\.tsx?$/.test(name))
  .sort()
  .map((name) => `src/views/${name}`);

const { outputFiles } = await build({
  absWorkingDir: HERE,
  entryPoints: [...views, "src/page/host.ts", { in: "src/core/hooklab.css", out: "hooklab" }].map((one) =>
    typeof one === "string" ? { in: one, out: one.replace(/^.*\/|\.tsx?$/g, "") } : one,
  ),
  outdir: OUT,
  write: false,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
  define: { "process.env.NODE_ENV": '"production"' },
});

const files = new Map(outputFiles.map(({ path, text }) => [path.slice(OUT.length), text]));
const shared = files.get("hooklab.css");
files.delete("hooklab.css");
for (const name of views.map((one) => one.replace(/^.*\/|\.tsx?$/g, "")))
  files.set(`${name}.css`, stylesFor(shared.trim(), name, files.get(`${name}.js`)));

const wrong = [];
for (const [name, text] of [...files].sort(([a], [b]) => (a < b ? -1 : 1))) {
  const size = name.endsWith(".js")
    ? deflateSync(text, { level: 9 }).toString("base64").length
    : Buffer.byteLength(text);
  const plain = (Buffer.byteLength(text) / 1024).toFixed(1);
  console.log(
    `${name.padEnd(16)} ${plain.padStart(6)} KB, carried as ${(size / 1024).toFixed(1).padStart(5)} KB`,
  );
  if (size > MOST) wrong.push(`${name} is larger than ${MOST / 1024} KB`);
  if (OUTSIDE.test(text)) wrong.push(`${name} loads something from outside`);
}
if (wrong.length) {
  console.error(`${wrong.join("\n")}\nnothing was written`);
  process.exit(1);
}
for (const name of await readdir(OUT)) if (/\.(js|css)$/.test(name) && !files.has(name)) await rm(OUT + name);
for (const [name, text] of files) await writeFile(OUT + name, text);
