// Changes the policy: what would change, the token, confirmation, and what is in force afterwards.

import { ask, hasToken, useToken } from "./client.js";
import { by, el, fill, say } from "./elements.js";

const CONFLICT = 409;
const UNKNOWN = 401;

/**
 * Show what a change would do, and make it once it is confirmed.
 *
 * @returns whether it was made.
 */
export function changePolicy({ title, sure, model, settings }) {
  const make = (digest, dryRun) =>
    ["/api/policy", { model, settings, if_digest: digest, dry_run: dryRun }];
  return confirmed({ title, sure, ok: "Apply", make });
}

/** Put the previous policy in force again once that is confirmed. */
export function rollBack() {
  return confirmed({
    title: "Roll back",
    sure: "Put the policy before this one in force again.",
    ok: "Roll back",
    make: (digest, dryRun) => ["/api/rollback", { if_digest: digest, dry_run: dryRun }],
  });
}

export function startApplied() {
  by("applied-close").addEventListener("click", () => { by("applied").hidden = true; });
  by("applied-rollback").addEventListener("click", async () => {
    if (await rollBack()) dispatchEvent(new HashChangeEvent("hashchange"));
  });
  for (const input of ["change-sure", "change-token"]) by(input).addEventListener("input", allow);
}

let possible = false;

/** The button works once everything it needs is there. */
function allow() {
  by("change-ok").disabled = !possible || !by("change-sure").checked
    || !(hasToken() || by("change-token").value.trim());
}

async function confirmed({ title, sure, ok, make }) {
  open(title, sure, ok);
  let policy = null;
  try {
    policy = await ask("/api/policy");
    await describe(policy, make);
  } catch (error) {
    say(by("change-alert"), error.message);
    say(by("change-intro"), "");
  }
  allow();
  return new Promise((resolve) => {
    const end = (made) => {
      by("change-form").removeEventListener("submit", submit);
      by("change-dialog").removeEventListener("close", closed);
      by("change-token").value = "";
      if (by("change-dialog").open) by("change-dialog").close();
      resolve(made);
    };
    const closed = () => end(false);
    const submit = async (event) => {
      event.preventDefault();
      if (event.submitter?.value === "cancel") end(false);
      else if (await carryOut(policy.digest, make)) end(true);
    };
    by("change-form").addEventListener("submit", submit);
    by("change-dialog").addEventListener("close", closed);
  });
}

function open(title, sure, ok) {
  possible = false;
  say(by("change-title"), title);
  say(by("change-intro"), "Asking what would change…");
  fill(by("change-list"));
  say(by("change-alert"), "");
  say(by("change-sure-text"), sure);
  say(by("change-ok"), ok);
  by("change-sure").checked = false;
  by("change-token").value = "";
  by("change-token-part").hidden = hasToken();
  by("change-ok").disabled = true;
  by("change-dialog").showModal();
}

async function describe(policy, make) {
  if (!policy.writable) {
    const where = policy.path || "the policy";
    throw new Error(`${where} cannot be written: change it where it comes from`);
  }
  const { changes, problems, restart } = await ask(...make(policy.digest, true));
  if (problems.length) throw new Error(problems.join("\n"));
  possible = changes.length > 0;
  say(by("change-intro"), possible ? "This would change:" : "Nothing would change.");
  fill(by("change-list"), changes.map((text) => el("li", {}, text)),
    restart.map((field) => el("li", {}, `${field}: only a restart puts this in force`)));
}

/** Make the change; what goes wrong is told in the dialog, which stays. */
async function carryOut(digest, make) {
  by("change-ok").disabled = true;
  const given = by("change-token").value;
  try {
    const result = await ask(...make(digest, false), given || undefined);
    if (given) useToken(given);
    if (!result.applied) throw new Error(result.problems.join("\n") || "it was not applied");
    await tellApplied();
    return true;
  } catch (error) {
    if (error.status === CONFLICT) {
      possible = false; // what was confirmed is not what would happen now
      say(by("change-alert"),
        `${error.message}. Nothing was changed here; close this and look again.`);
    } else say(by("change-alert"), error.message);
    if (error.status === UNKNOWN) {
      useToken("");
      by("change-token-part").hidden = false;
      by("change-token").value = "";
      by("change-token").focus();
    }
    allow();
    return false;
  }
}

async function tellApplied() {
  const policy = await ask("/api/policy");
  by("applied").hidden = false;
  const digest = policy.digest.slice(0, 12);
  say(by("applied-text"), `✓ In force: generation ${policy.generation}, digest ${digest}.`);
  by("applied-rollback").hidden = !policy.previous;
}
