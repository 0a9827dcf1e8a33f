// Where the user writes: text, files, send, stop.

import { stoppableTurn } from "../reducer.js";
import { el, icon, iconButton, keyedList, setText } from "./dom.js";
import { bytes } from "./format.js";

const MAX_HEIGHT_PX = 220;
const ACCEPTED_FILES = ".csv,.tsv,.json,.jsonl,.ndjson,.parquet,.gz,.txt,.md,.html,.pdf"; // usage logs and documents

/**
 * `actions`: {send(text) → "" or what is wrong with it, stop(), attach(files), detach(id), changed(text)}.
 * Enter sends, Shift+Enter makes a new line; while an input method composes, Enter belongs to it.
 */
export function composerView(root, actions) {
  const input = el("textarea", {
    id: "composer-input",
    class: "composer-input",
    rows: "1",
    placeholder: "Ask about your AI usage",
    "aria-label": "Message",
    "aria-describedby": "composer-hint",
    data: { testid: "composer" },
  });
  const picker = el("input", {
    type: "file",
    class: "visually-hidden",
    multiple: true,
    accept: ACCEPTED_FILES,
    tabindex: "-1",
    "aria-label": "Choose files",
    data: { testid: "file-input" },
  });
  const attach = iconButton("clip", "Attach a file", () => picker.click(), {
    class: "icon-button",
    data: { testid: "attach" },
  });
  const stop = iconButton("stop", "Stop (Esc)", () => actions.stop(), {
    class: "stop-button",
    hidden: true,
    data: { testid: "stop" },
  });
  const send = el(
    "button",
    { type: "submit", class: "send-button", "aria-label": "Send", title: "Send (Enter)", data: { testid: "send" } },
    icon("arrowUp"),
  );
  const chips = el("ul", { class: "chips", "aria-label": "Files to send", hidden: true });
  const problem = el("p", {
    class: "composer-problem",
    role: "alert",
    hidden: true,
    data: { testid: "composer-problem" },
  });
  const hint = el("p", { class: "composer-hint", id: "composer-hint" });
  const form = el(
    "form",
    { class: "composer", novalidate: true },
    chips,
    el("div", { class: "composer-line" }, attach, picker, input, stop, send),
  );
  root.append(problem, form, hint);

  let isUploading = false;
  const detach = (id) => {
    say(""); // it may have been about this file
    actions.detach(id);
  };
  const updateChips = keyedList(
    chips,
    (item) => item.id,
    (item) => chipView(item, detach),
  );

  const say = (text) => {
    setText(problem, text);
    problem.hidden = text === "";
  };
  const fit = () => {
    input.style.height = "auto";
    input.style.height = `${Math.min(input.scrollHeight, MAX_HEIGHT_PX)}px`;
    send.disabled = input.value.trim() === "" || isUploading;
  };
  const submit = () => {
    const text = input.value.trim();
    if (!text || isUploading) return;
    const wrong = actions.send(text);
    say(wrong);
    if (wrong) return;
    input.value = "";
    actions.changed("");
    fit();
  };

  input.addEventListener("input", () => {
    say("");
    fit();
    actions.changed(input.value);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  input.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    actions.attach([...event.clipboardData.files]);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
    input.focus();
  });
  picker.addEventListener("change", () => {
    actions.attach([...picker.files]);
    picker.value = "";
    input.focus();
  });

  return {
    focus: () => input.focus(),
    pickFiles: () => picker.click(),
    /** Puts a text into the field, for the user to change and send. */
    fill(text) {
      input.value = text;
      fit();
      actions.changed(text);
      input.focus();
      input.setSelectionRange(text.length, text.length);
    },
    update(state) {
      isUploading = state.attachments.some((item) => item.status === "uploading");
      updateChips(state.attachments);
      chips.hidden = state.attachments.length === 0;
      stop.hidden = stoppableTurn(state) === null;
      setText(hint, hintText(state, isUploading));
      fit();
    },
  };
}

function hintText(state, isUploading) {
  if (isUploading) return "The message can go when the upload is done.";
  if (state.connection.phase === "offline")
    return "You are offline. What you send now goes out when the network is back.";
  if (state.connection.phase !== "live" && state.connection.phase !== "connecting") {
    return "Not connected. What you send now goes out when the line is back.";
  }
  return "Numbers come from your data. Enter sends, Shift+Enter makes a new line.";
}

function chipView(attachment, detach) {
  const state = el("span", { class: "chip-state" });
  const bar = el("progress", { max: "1", value: "0", "aria-label": `Upload of ${attachment.name}` });
  const remove = iconButton("close", `Remove ${attachment.name}`, () => detach(attachment.id), {
    class: "chip-remove",
  });
  const node = el(
    "li",
    { class: "chip chip-upload", data: { testid: "attachment" } },
    icon("file"),
    el("span", { class: "chip-name", text: attachment.name, title: attachment.name }),
    state,
    bar,
    remove,
  );
  return {
    node,
    update(item) {
      node.dataset.status = item.status;
      bar.hidden = item.status !== "uploading";
      bar.value = item.progress;
      setText(
        state,
        item.status === "failed"
          ? item.error
          : item.status === "uploading"
            ? `${Math.round(item.progress * 100)} %`
            : bytes(item.sizeBytes),
      );
    },
  };
}
