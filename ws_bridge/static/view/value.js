// A tool's arguments or result, which may be any JSON, as something to read: tables for rows, pairs for fields.

import { el } from "./dom.js";
import { money, number, words } from "./format.js";

const MAX_ROWS = 50;
const MAX_TEXT = 4000; // characters of one value
const MAX_DEPTH = 3;

/** True if there is nothing to show. */
export const isEmptyValue = (value) =>
  value === null || value === undefined || (typeof value === "object" && Object.keys(value).length === 0);

/** A node for any JSON value. `name` is the field's, if it has one: amounts in USD look like money. */
export function valueNode(value, depth = 0, name = "") {
  if (Array.isArray(value)) return arrayNode(value, depth);
  if (value !== null && typeof value === "object") return objectNode(value, depth);
  return el("span", { class: `value value-${value === null ? "null" : typeof value}`, text: scalarText(value, name) });
}

function scalarText(value, name = "") {
  if (value === null) return "none";
  if (typeof value === "number") return name.endsWith("_usd") ? money(value) : number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT)}…` : value;
}

function objectNode(value, depth) {
  if (depth >= MAX_DEPTH) return jsonNode(value);
  if (Array.isArray(value.columns) && Array.isArray(value.rows) && value.rows.every(Array.isArray)) {
    const names = value.columns.map((column) => (typeof column === "string" ? column : (column?.name ?? "")));
    const { columns: _columns, rows, ...rest } = value;
    const table = tableNode(names, rows);
    return isEmptyValue(rest) ? table : el("div", { class: "value-stack" }, objectNode(rest, depth), table);
  }
  // What is not there need not be listed; what is short comes before what is long.
  const entries = Object.entries(value).filter(([, item]) => !isEmptyValue(item));
  if (!entries.length) return el("span", { class: "value value-null", text: "nothing" });
  const pairs = [...entries.filter(([, item]) => isScalar(item)), ...entries.filter(([, item]) => !isScalar(item))];
  const nodes = pairs.flatMap(([key, item]) => [
    el("dt", { text: words(key) }),
    el("dd", {}, valueNode(item, depth + 1, key)),
  ]);
  return el("dl", { class: "value-pairs" }, ...nodes);
}

function arrayNode(value, depth) {
  if (!value.length) return el("span", { class: "value value-null", text: "none" });
  if (value.every(isScalar)) {
    const shown = value.slice(0, MAX_ROWS).map((item) => scalarText(item));
    const text = shown.join(", ");
    return el("span", {
      class: "value",
      text: value.length > MAX_ROWS ? `${text}, … (${number(value.length)})` : text,
    });
  }
  const rows = value.map(flatRow);
  if (rows.every((row) => row !== null)) return tableNode(...columnsOf(rows));
  return depth + 1 >= MAX_DEPTH
    ? jsonNode(value)
    : el("div", { class: "value-stack" }, ...value.slice(0, MAX_ROWS).map((item) => valueNode(item, depth + 1)));
}

const isScalar = (item) => item === null || typeof item !== "object";

/** An object as one row: fields of an inner object become columns of their own. Null if it is deeper than that. */
function flatRow(value) {
  if (isScalar(value) || Array.isArray(value)) return null;
  const row = {};
  for (const [key, item] of Object.entries(value)) {
    if (isScalar(item)) row[key] = item;
    else if (Object.values(item).every(isScalar)) {
      if (Array.isArray(item)) row[key] = item.join(", ");
      else for (const [inner, innerItem] of Object.entries(item)) row[`${key}_${inner}`] = innerItem;
    } else return null;
  }
  return row;
}

/** Names and cells for a table: columns that say nothing go, texts come before numbers. */
function columnsOf(rows) {
  const names = [...new Set(rows.slice(0, MAX_ROWS).flatMap((row) => Object.keys(row)))];
  const used = names.filter((name) => rows.some((row) => !isEmptyValue(row[name]) && row[name] !== ""));
  const isText = (name) => rows.some((row) => typeof row[name] === "string");
  const ordered = [...used.filter(isText), ...used.filter((name) => !isText(name))];
  return [ordered, rows.map((row) => ordered.map((name) => row[name] ?? null))];
}

function tableNode(names, rows) {
  const isNumeric = names.map((_, column) =>
    rows.every((row) => row[column] === null || typeof row[column] === "number"),
  );
  const align = (column) => (isNumeric[column] ? "align-right is-number" : null);
  const head = names.map((name, column) => el("th", { scope: "col", class: align(column), text: words(name) }));
  const body = rows
    .slice(0, MAX_ROWS)
    .map((row) =>
      el(
        "tr",
        {},
        ...names.map((name, column) =>
          el("td", { class: align(column) }, valueNode(row[column] ?? null, MAX_DEPTH, name)),
        ),
      ),
    );
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
  const more = rows.length - MAX_ROWS;
  return el(
    "div",
    { class: "table", tabindex: "0", role: "region", "aria-label": "Result table" },
    table,
    more > 0 && el("p", { class: "table-more", text: `and ${number(more)} more rows` }),
  );
}

const jsonNode = (value) => el("pre", { class: "value-json", tabindex: "0", text: JSON.stringify(value, null, 2) });
