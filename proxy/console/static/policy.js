// The policy in force, and where the shadow policy would have decided otherwise.

import { rollBack } from "./change.js";
import { ask } from "./client.js";
import { by, say, table } from "./elements.js";
import { number, time } from "./figures.js";

let started = false;

export async function showPolicy() {
  if (!started) {
    started = true;
    by("rollback").addEventListener("click", async () => { if (await rollBack()) showPolicy(); });
  }
  await Promise.all([showText(), showShadow()]);
}

async function showText() {
  try {
    const policy = await ask("/api/policy");
    say(by("policy-facts"), `Generation ${policy.generation}, digest ${policy.digest}`
      + `${policy.path ? `, from ${policy.path}` : ""}.`);
    say(by("policy-note"),
      policy.writable ? "" : "It cannot be changed from here: the file is not writable.");
    say(by("policy-text"), policy.text);
    by("policy-text").hidden = false;
    by("rollback").hidden = !(policy.writable && policy.previous);
  } catch (error) {
    say(by("policy-facts"), "");
    by("policy-text").hidden = by("rollback").hidden = true;
    say(by("policy-note"), error.message);
  }
}

async function showShadow() {
  try {
    const { records } = await ask("/api/disagreements");
    say(by("shadow-note"), records.length ? "" :
      "None. A model's `shadow:` field gives it a second policy that is scored and does not act.");
    by("shadow-table").hidden = !records.length;
    table(by("shadow-table"), "Newest first",
      ["Sample", "Time", "Model", "In force", "Shadow", ">Score", ">Threshold"],
      records.map((each) => [each.id, time(each.time_s), each.model, each.verdict,
        each.shadow === each.verdict ? "another action" : each.shadow,
        number(each.score, 4), number(each.threshold, 4)]));
  } catch (error) {
    say(by("shadow-note"), error.message);
  }
}
