// The page: its sections by the hash, the connection, and the token.

import { by, say } from "./elements.js";
import { askForToken } from "./token.js";
import { startApplied } from "./change.js";
import { startOverview } from "./overview.js";
import { showPolicy } from "./policy.js";
import { startSuspicious } from "./suspicious.js";
import { showExplorer } from "./explorer.js";

const SECTIONS = {
  overview: () => {},
  suspicious: () => {},
  thresholds: showExplorer,
  policy: showPolicy,
};

function show({ focus }) {
  const wanted = location.hash.slice(1);
  const name = wanted in SECTIONS ? wanted : "overview";
  for (const each of Object.keys(SECTIONS)) by(`${each}-page`).hidden = each !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${by(`${name}-title`).textContent} · Breakwater console`;
  if (focus) by("main").focus({ preventScroll: true });
  SECTIONS[name]();
}

const troubles = new Map();

/** Say what does not work, or that it works again. */
function connection(part, trouble) {
  if (trouble) troubles.set(part, trouble);
  else troubles.delete(part);
  say(by("connection"), [...new Set(troubles.values())].map((text) => `✕ ${text}`).join("; "));
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash names the section
  by("main").focus();
});
addEventListener("hashchange", () => show({ focus: true }));
by("unlock").addEventListener("click", async () => {
  if (await askForToken()) show({ focus: false });
});
startApplied();
startOverview(connection);
startSuspicious(connection);
show({ focus: false });
