// What went wrong and belongs to no message: a short stack of notes that the user can close.

import { el, icon, iconButton, keyedList } from "./dom.js";

/** `actions`: {dismiss(id)}. */
export function noticesView(root, actions) {
  const update = keyedList(
    root,
    (notice) => notice.id,
    (notice) => ({
      node: el(
        "div",
        { class: "notice", role: "alert", data: { testid: "notice" } },
        icon("alert"),
        el("p", { text: notice.message || notice.code }),
        iconButton("close", "Close", () => actions.dismiss(notice.id), { class: "icon-button small" }),
      ),
      update() {},
    }),
  );
  return { update: (state) => update(state.notices) };
}
