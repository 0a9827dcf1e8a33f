// The few DOM helpers that every view needs. Nodes are made one by one; no view ever parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Props: `class`, `text`, `on` ({event: handler}), `data` ({name: value}), `hidden` and other attributes;
 * null, undefined and false leave an attribute out. Children: nodes, strings, or null for nothing.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "data") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A button with an icon; `label` is its name for everybody who does not see it. */
export function iconButton(name, label, onClick, props = {}) {
  return el(
    "button",
    { type: "button", "aria-label": label, title: label, on: { click: onClick }, ...props },
    icon(name),
  );
}

/** Sets text only when it changed: a live region that is written again is read out again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Keeps the children of `parent` in step with a list. `keyOf(item)` names an item for its whole life, `create(item)`
 * makes its view {node, update(item)}. Nodes of items that stay are kept, with their focus and selection.
 */
export function keyedList(parent, keyOf, create) {
  let views = new Map();
  return (items) => {
    const next = new Map(items.map((item) => [keyOf(item), views.get(keyOf(item)) ?? create(item)]));
    for (const [key, view] of views) if (!next.has(key)) view.node.remove();
    items.forEach((item, index) => {
      const view = next.get(keyOf(item));
      view.update(item);
      const there = parent.children[index];
      if (there !== view.node) parent.insertBefore(view.node, there ?? null);
    });
    views = next;
  };
}

const ICONS = {
  alert: "M12 8v5M12 16.5v.01M10.3 3.9 2.4 17.6A2 2 0 0 0 4.1 20.6h15.8a2 2 0 0 0 1.7-3L13.7 3.9a2 2 0 0 0-3.4 0Z",
  arrowDown: "M12 5v14M6 13l6 6 6-6",
  arrowUp: "M12 19V5M6 11l6-6 6 6",
  check: "m5 12.5 4.5 4.5L19 7.5",
  chevron: "m9 6 6 6-6 6",
  clip: "m20 11.5-8.2 8.2a5 5 0 0 1-7.1-7.1l8.6-8.6a3.4 3.4 0 0 1 4.8 4.8l-8.6 8.6a1.7 1.7 0 0 1-2.4-2.4l7.9-7.9",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  edit: "M4 20h4L19 9l-4-4L4 16ZM13 7l4 4",
  file: "M6 3h8l4 4v14H6ZM14 3v4h4",
  handoff: "M4 12h14M13 6l6 6-6 6",
  people:
    "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM2.5 20c.5-3.5 3-5.5 6.5-5.5s6 2 6.5 5.5M16 4.3a3.5 3.5 0 0 1 0 6.4M18 14.9c2 .8 3.2 2.6 3.5 5.1",
  info: "M12 11v6M12 7.5v.01M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18Z",
  list: "M8 6h12M8 12h12M8 18h12M4 6v.01M4 12v.01M4 18v.01",
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  retry: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM20 20l-4-4",
  shield: "M12 3 5 6v5c0 4.6 3 8.2 7 10 4-1.8 7-5.4 7-10V6Z",
  spark: "M12 4v4M12 16v4M4 12h4M16 12h4M6.5 6.5l2.5 2.5M15 15l2.5 2.5M6.5 17.5 9 15M15 9l2.5-2.5",
  stop: "M7 7h10v10H7z",
  thought: "M5 17.5 4 21l3.8-1.6A9 9 0 1 0 5 17.5ZM8 11h.01M12 11h.01M16 11h.01",
  trash: "M5 7h14M10 4h4M7 7l1 13h8l1-13M10 11v5M14 11v5",
};

/** A line icon of 24 × 24 units that takes the colour of its text. */
export function icon(name, className = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon ${className}`.trim());
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** The mark of Apex: a peak, and the line that leads up to it. */
export function mark(className = "mark") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", className);
  svg.setAttribute("aria-hidden", "true");
  for (const [d, name] of [
    ["M12 3 22 20H2Z", "mark-peak"],
    ["M12 3 16.2 10.2 13.4 12.4 12 10.6 9.6 12.8 7.8 10.2Z", "mark-snow"],
  ]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}
