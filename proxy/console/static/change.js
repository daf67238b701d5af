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
let wantsToken = false; // before it is told what would change

/** The button works once everything it needs is there. */
function allow() {
  const token = hasToken() || by("change-token").value.trim();
  by("change-ok").disabled = !token || !(wantsToken || (possible && by("change-sure").checked));
}

async function confirmed({ title, sure, ok, make }) {
  open(title, sure);
  let policy = await look(ok, make);
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
      else if (wantsToken) {
        useToken(by("change-token").value);
        policy = await look(ok, make);
      } else if (await carryOut(policy.digest, make)) end(true);
    };
    by("change-form").addEventListener("submit", submit);
    by("change-dialog").addEventListener("close", closed);
  });
}

function open(title, sure) {
  possible = false;
  say(by("change-title"), title);
  say(by("change-sure-text"), sure);
  by("change-dialog").showModal();
}

/** Show what would change, as far as the token allows; returns the policy that it was seen for. */
async function look(ok, make) {
  wantsToken = false;
  say(by("change-intro"), "Asking what would change…");
  fill(by("change-list"));
  say(by("change-alert"), "");
  say(by("change-ok"), ok);
  by("change-sure").checked = false;
  by("change-token").value = "";
  by("change-token-part").hidden = true;
  by("change-ok").disabled = true;
  try {
    const policy = await ask("/api/policy");
    await describe(policy, make);
    return policy;
  } catch (error) {
    say(by("change-alert"), error.message);
    say(by("change-intro"), "");
    wantsToken = error.status === UNKNOWN;
    if (wantsToken) {
      say(by("change-ok"), "Show what would change");
      askAgain();
    }
    return null;
  } finally {
    allow();
  }
}

/** Ask for another token. */
function askAgain() {
  useToken("");
  by("change-token-part").hidden = false;
  by("change-token").value = "";
  by("change-token").focus();
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
    if (error.status === UNKNOWN) askAgain();
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
