// Reads a page, and writes what html-validate's recommended rules have to say of it, but for how
// "doctype" is written, and for hashes of files that come from the page's own origin.
import { readFileSync } from "node:fs";
import { FileSystemConfigLoader, HtmlValidate } from "html-validate";

const loader = new FileSystemConfigLoader({
  extends: ["html-validate:recommended", "html-validate:document"],
  rules: { "doctype-style": "off", "require-sri": ["error", { target: "crossorigin" }] },
});
const { results } = await new HtmlValidate(loader).validateString(readFileSync(0, "utf8"), "live.html");
console.log(JSON.stringify(results.flatMap(({ messages }) =>
  messages.map(({ ruleId, message, line }) => `line ${line}: ${message} (${ruleId})`))));
