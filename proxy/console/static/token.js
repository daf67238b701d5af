// Asks the reader for the token.

import { useToken } from "./client.js";
import { by } from "./elements.js";

/** Show the dialog; true when a token was given. */
export function askForToken() {
  const dialog = by("token-dialog");
  by("token").value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  by("token").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" && by("token").value.trim() !== "";
      if (given) useToken(by("token").value);
      by("token").value = "";
      resolve(given);
    }, { once: true });
  });
}
