// The conversations as a drawer, where the page is too narrow to show them beside the open one.

import { iconButton } from "./dom.js";

/** `head` gets the menu button; `sidebar` slides over the page, `scrim` covers the rest and closes it. */
export function drawerView({ head, sidebar, scrim }) {
  const menu = iconButton("menu", "Conversations", () => open(), {
    class: "icon-button menu",
    "aria-expanded": "false",
    "aria-controls": sidebar.id,
    data: { testid: "menu" },
  });
  const isOpen = () => document.body.classList.contains("has-drawer");
  const set = (isShown) => {
    document.body.classList.toggle("has-drawer", isShown);
    menu.setAttribute("aria-expanded", String(isShown));
    scrim.hidden = !isShown;
  };
  const open = () => {
    set(true);
    sidebar.querySelector("button")?.focus();
  };
  /** Returns whether it was open. */
  const close = () => {
    if (!isOpen()) return false;
    set(false);
    menu.focus();
    return true;
  };
  head.prepend(menu);
  scrim.addEventListener("click", close);
  return { close };
}
