// The state of the line, in the page's head: a word, a colour, and a way to act on it.

import { el, setText } from "./dom.js";

const WORDS = {
  connecting: "Connecting",
  live: "Live",
  offline: "Offline",
  signin: "Sign-in needed",
  stopped: "Disconnected",
};

/** `actions`: {retry(), signIn()}. */
export function badgeView(root, actions) {
  const text = el("span", { class: "badge-text" });
  let phase = "";
  const act = () => (phase === "signin" ? actions.signIn() : actions.retry());
  const button = el(
    "button",
    { type: "button", class: "badge", data: { testid: "connection" }, on: { click: act } },
    el("span", { class: "badge-dot" }),
    text,
  );
  const banner = el("div", { class: "banner", role: "status", hidden: true, data: { testid: "banner" } });
  root.badge.append(button);
  root.banner.append(banner);
  return {
    update({ connection, serviceNotice }, nowMs) {
      ({ phase } = connection);
      button.dataset.phase = phase;
      const seconds = Math.ceil(((connection.retryAtMs ?? nowMs) - nowMs) / 1000);
      const waiting = seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting";
      const isServiceAway = phase === "live" && serviceNotice !== "";
      button.classList.toggle("is-service-away", isServiceAway);
      const word = isServiceAway ? "Waiting for the service" : (WORDS[phase] ?? phase);
      setText(text, phase === "reconnecting" ? waiting : word);
      button.disabled = !["reconnecting", "signin", "stopped"].includes(phase);
      button.title = [connection.reason, button.disabled ? "" : phase === "signin" ? "Sign in" : "Connect now"]
        .filter(Boolean)
        .join(" ");
      setText(banner, phase === "live" ? serviceNotice : phase === "stopped" ? connection.reason : "");
      banner.hidden = banner.textContent === "";
    },
  };
}
