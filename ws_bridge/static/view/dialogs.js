// Questions that need an answer before anything goes on.

import { el } from "./dom.js";

/** Asks before something is lost. Resolves with true or false; Escape is false. */
export function confirmDialog({ title, text, action }) {
  return ask(
    [el("h2", { text: title }), el("p", { text })],
    el("button", { class: "button danger", value: "yes", text: action, data: { testid: "confirm" } }),
    (dialog) => dialog.returnValue === "yes",
  );
}

/** Asks for an access token. Resolves with it, or with "". */
export function tokenDialog(reason) {
  const input = el("textarea", {
    rows: "4",
    class: "token-input",
    "aria-label": "Access token",
    spellcheck: "false",
    autocomplete: "off",
  });
  return ask(
    [
      el("h2", { text: "Sign in" }),
      el("p", { text: reason || "The service needs to know who you are." }),
      el("p", { text: "Paste an access token. It stays in this tab and is forgotten when you close it." }),
      input,
    ],
    el("button", { class: "button primary", value: "yes", text: "Sign in" }),
    (dialog) => (dialog.returnValue === "yes" ? input.value.trim() : ""),
  );
}

function ask(content, accept, answerOf) {
  const refuse = el("button", { class: "button", value: "no", text: "Cancel", autofocus: true });
  const form = el("form", { method: "dialog" }, ...content, el("div", { class: "dialog-actions" }, refuse, accept));
  const dialog = el("dialog", { class: "dialog", data: { testid: "dialog" } }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answerOf(dialog));
    });
  });
}
