// Values as people read them. Pure. Always in English, like the rest of the page, whatever the browser's language.

const LOCALE = "en-US";
const integer = new Intl.NumberFormat(LOCALE);
const decimal = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 6 });
const wholeMoney = new Intl.NumberFormat(LOCALE, { style: "currency", currency: "USD" });
const smallMoney = new Intl.NumberFormat(LOCALE, { style: "currency", currency: "USD", maximumFractionDigits: 6 });
const clock = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const exactClock = new Intl.DateTimeFormat(LOCALE, { timeStyle: "medium", hourCycle: "h23" });
const date = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", year: "numeric" });

const DAY_MS = 86_400_000;

/** "840 ms", "4.2 s", "2 min 5 s". */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1000)} s`;
}

/** Time that is still running: whole seconds, so that it does not twitch. */
export function elapsed(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** Two decimals, and six for what is less than a cent. */
export function money(usd) {
  const isSmall = usd !== 0 && Math.abs(usd) < 0.01;
  return (isSmall ? smallMoney : wholeMoney).format(usd);
}

export function bytes(count) {
  if (count < 1024) return `${count} B`;
  if (count < 1024 * 1024) return `${(count / 1024).toFixed(1)} KB`;
  return `${(count / 1024 / 1024).toFixed(1)} MB`;
}

export const number = (value) => (Number.isInteger(value) ? integer.format(value) : decimal.format(value));

export const timeOfDay = (time) => clock.format(new Date(time));

export const fullTime = (time) => `${date.format(new Date(time))}, ${timeOfDay(time)}`;

/** The heading under which a thread stands: by its last day, seen from `nowMs`, in local time. */
export function dayGroup(time, nowMs) {
  const midnight = new Date(nowMs).setHours(0, 0, 0, 0);
  const then = Date.parse(time);
  if (Number.isNaN(then)) return "Earlier";
  if (then >= midnight) return "Today";
  if (then >= midnight - DAY_MS) return "Yesterday";
  if (then >= midnight - 7 * DAY_MS) return "Last 7 days";
  return "Earlier";
}

export const timeWithSeconds = (time) => exactClock.format(new Date(time));

const ACRONYMS = { usd: "USD", id: "ID", url: "URL", utc: "UTC", rpm: "RPM", tpm: "TPM", sql: "SQL" };

/** "cost_breakdown" → "Cost breakdown". */
export function words(name) {
  const parts = name.split(/[_\s]+/).map((part) => (Object.hasOwn(ACRONYMS, part) ? ACRONYMS[part] : part));
  const text = parts.join(" ").trim();
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

export const count = (value, one, many = `${one}s`) => `${integer.format(value)} ${value === 1 ? one : many}`;
