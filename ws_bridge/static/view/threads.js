// The list of conversations: search, open, rename, delete. On a narrow page it is a drawer.

import { busyThreads } from "../reducer.js";
import { el, icon, iconButton, keyedList, setText } from "./dom.js";
import { dayGroup } from "./format.js";

const SEARCH_DELAY_MS = 250;
const MAX_TITLE = 200; // characters; the contract's limit

/** `actions`: {search(query), open(threadId), rename(threadId, title), remove(thread), more(), startNew(), retry()}. */
export function threadsView(root, actions) {
  const list = el("div", { class: "thread-groups", data: { testid: "threads" } });
  const message = el("p", { class: "thread-message" });
  const more = el("button", {
    type: "button",
    class: "link thread-more",
    text: "Show more",
    on: { click: actions.more },
  });
  const search = el("input", {
    type: "search",
    placeholder: "Search",
    "aria-label": "Search conversations",
    autocomplete: "off",
    data: { testid: "thread-search" },
  });
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => actions.search(search.value.trim()), SEARCH_DELAY_MS);
  });
  const startNew = el(
    "button",
    { type: "button", class: "new-thread", data: { testid: "new-thread" }, on: { click: actions.startNew } },
    icon("plus"),
    "New conversation",
  );
  root.append(
    startNew,
    el("label", { class: "search" }, icon("search"), search),
    el("nav", { class: "thread-scroll", "aria-label": "Conversations" }, list, message, more),
  );

  const updateGroups = keyedList(
    list,
    (group) => group.name,
    (group) => groupView(group, actions),
  );
  return {
    update(state, nowMs) {
      const busy = busyThreads(state);
      const groups = new Map();
      for (const thread of state.threads.items) {
        const name = dayGroup(thread.update_time, nowMs);
        if (!groups.has(name)) groups.set(name, { name, threads: [] });
        groups
          .get(name)
          .threads.push({ ...thread, isOpen: thread.thread_id === state.open.key, isBusy: busy.has(thread.thread_id) });
      }
      updateGroups([...groups.values()]);
      setText(message, listMessage(state.threads));
      message.hidden = message.textContent === "";
      more.hidden = !state.threads.nextPageToken;
    },
  };
}

function listMessage({ status, items, query, error }) {
  if (status === "failed") return `The conversations could not be loaded. ${error}`;
  if (items.length || status === "loading") return "";
  return query ? "Nothing found." : "Your conversations will be here.";
}

function groupView(group, actions) {
  const list = el("ul", { class: "thread-list" });
  const update = keyedList(
    list,
    (thread) => thread.thread_id,
    (thread) => threadView(thread, actions),
  );
  const node = el("section", { class: "thread-group" }, el("h2", { text: group.name }), list);
  return { node, update: ({ threads }) => update(threads) };
}

function threadView(thread, actions) {
  let current = thread;
  const title = el("span", { class: "thread-title" });
  const busy = el("span", { class: "dot-pulse", title: "At work", hidden: true });
  const open = el(
    "a",
    { class: "thread-open", href: `#/t/${thread.thread_id}`, on: { click: () => actions.open(thread.thread_id) } },
    title,
    busy,
  );
  const rename = iconButton("edit", "Rename", () => startRename(), {
    class: "icon-button small",
    data: { testid: "thread-rename" },
  });
  const remove = iconButton("trash", "Delete", () => actions.remove(current), {
    class: "icon-button small",
    data: { testid: "thread-delete" },
  });
  const row = el("div", { class: "thread-row" }, open, el("div", { class: "thread-actions" }, rename, remove));
  const node = el("li", { class: "thread", data: { testid: "thread", threadId: thread.thread_id } }, row);

  function startRename() {
    const input = el("input", {
      class: "thread-edit",
      "aria-label": "New title",
      maxlength: String(MAX_TITLE),
      data: { testid: "thread-title-input" },
    });
    input.value = current.title;
    let isDone = false;
    const finish = (save) => {
      if (isDone) return;
      isDone = true;
      node.replaceChildren(row);
      const text = input.value.trim();
      if (save && text && text !== current.title) actions.rename(current.thread_id, text, current.title);
      rename.focus();
    };
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      finish(event.key === "Enter");
    });
    input.addEventListener("blur", () => finish(true));
    node.replaceChildren(input);
    input.focus();
    input.select();
  }

  return {
    node,
    update(next) {
      current = next;
      setText(title, next.title || "New conversation");
      open.title = next.title;
      if (next.isOpen) open.setAttribute("aria-current", "page");
      else open.removeAttribute("aria-current");
      busy.hidden = !next.isBusy;
    },
  };
}
