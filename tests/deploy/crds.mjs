// Checks custom resources against the schemas of the operators that own them. Reads a JSON array of
// {where, document} on standard input; prints a JSON array of {where, reason} for those refused. Runs
// in a folder whose node_modules holds the packages of npm.txt.
//
// Two checks, since each sees what the other does not: the compiled JSON Schema (required members,
// enums, patterns) and the types (a member that does not exist, which Kubernetes would drop silently).

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.cwd(), "package.json"));
const ts = require("typescript");

const PACKAGES = {
  "networking.istio.io": "istio",
  "security.istio.io": "istio",
  "gateway.envoyproxy.io": "envoy-gateway",
  "monitoring.coreos.com": "prometheus-operator",
};

const entries = JSON.parse(fs.readFileSync(0, "utf8"));
const refused = [];
const source = [];
for (const [n, { where, document }] of entries.entries()) {
  const { apiVersion, kind } = document;
  const name = PACKAGES[apiVersion.split("/")[0]];
  const module = `@kubernetes-models/${name}/${apiVersion}/${kind}`;
  const file = path.resolve(`node_modules/${module}.js`);
  if (!name || !fs.existsSync(file)) {
    refused.push({ where, reason: `no schema for ${apiVersion} ${kind}` });
    source.push("");
    continue;
  }
  try {
    const Kind = (await import(pathToFileURL(file)))[kind];
    new Kind(document).validate();
  } catch (error) {
    refused.push({ where, reason: String(error.message) });
  }
  // One line each, so that an error's line is the entry's number.
  source.push(`{ const d: import("${module}").I${kind} = ${JSON.stringify(document)}; void d; }`);
}

const file = path.resolve(`check-${process.pid}.ts`);
const options = {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  types: [],
  target: ts.ScriptTarget.ESNext,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
};
const host = ts.createCompilerHost(options);
const read = host.getSourceFile;
const text = source.join("\n") + "\nexport {};";
host.getSourceFile = (name, ...rest) =>
  path.resolve(name) === file ? ts.createSourceFile(name, text, ts.ScriptTarget.ESNext) : read(name, ...rest);
const exists = host.fileExists;
host.fileExists = (name) => path.resolve(name) === file || exists(name);
const program = ts.createProgram([file], options, host);
for (const problem of ts.getPreEmitDiagnostics(program)) {
  const reason = ts.flattenDiagnosticMessageText(problem.messageText, " ");
  if (problem.file?.fileName !== file) throw new Error(reason);
  const { line } = problem.file.getLineAndCharacterOfPosition(problem.start);
  refused.push({ where: entries[line].where, reason });
}
console.log(JSON.stringify(refused));
