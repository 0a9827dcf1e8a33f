// A Markdown tree as DOM nodes, and an answer that keeps its nodes while it grows.

import { parseInline } from "../markdown_inline.js";
import { parseMarkdown } from "../markdown.js";
import { el, icon } from "./dom.js";

const COPIED_MS = 1500;
const NUMERIC = /^[\s$€£¥+\-−–(]*\d[\d,.\s]*\s*(?:%|ms|s|x|×|k|M|B|GB|MB|KB)?\)?$/;

/** A growing text. `update(text, {tail})` makes nodes for the blocks that changed, and keeps all others. */
export function markdownView(className) {
  const node = el("div", { class: className });
  let shown = []; // [{raw, isTail, node}]
  let lastText = null;
  let lastTail = null;
  return {
    node,
    update(text, { tail = false } = {}) {
      if (text === lastText && tail === lastTail) return;
      lastText = text;
      lastTail = tail;
      const blocks = parseMarkdown(text, { tail });
      const next = blocks.map((block, index) => {
        const isTail = tail && index === blocks.length - 1;
        const known = shown[index];
        // A block that was read as unfinished may look different now that something follows it.
        if (known && known.raw === block.raw && known.type === block.type && known.isTail === isTail) return known;
        return { raw: block.raw, type: block.type, isTail, node: blockNode(block, isTail) };
      });
      next.forEach((entry, index) => {
        const there = node.children[index];
        if (there === entry.node) return;
        if (there && shown[index]?.node === there) there.replaceWith(entry.node);
        else node.insertBefore(entry.node, there ?? null);
      });
      while (node.children.length > next.length) node.lastElementChild.remove();
      shown = next;
    },
  };
}

function blockNode(block, tail) {
  switch (block.type) {
    case "heading":
      // The page's own headings are h1 and h2; an answer's begin below them.
      return el(`h${Math.min(block.level + 2, 6)}`, { class: `md-h${block.level}` }, ...inlineNodes(block.text, tail));
    case "code":
      return codeNode(block);
    case "quote":
      return el("blockquote", {}, ...blockNodes(block.blocks, tail));
    case "list":
      return listNode(block, tail);
    case "table":
      return tableNode(block, tail);
    case "rule":
      return el("hr");
    default:
      return el("p", {}, ...inlineNodes(block.text, tail));
  }
}

const blockNodes = (blocks, tail) =>
  blocks.map((block, index) => blockNode(block, tail && index === blocks.length - 1));

function codeNode({ language, text }) {
  const label = el("span", { text: "Copy" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = "Copied";
    } catch {
      label.textContent = "Not allowed";
    }
    setTimeout(() => {
      label.textContent = "Copy";
    }, COPIED_MS);
  };
  const button = el("button", { type: "button", class: "code-copy", on: { click: copy } }, icon("copy"), label);
  const bar = el("div", { class: "code-bar" }, el("span", { text: language || "text" }), button);
  return el("div", { class: "code" }, bar, el("pre", { tabindex: "0" }, el("code", { text })));
}

function listNode(block, tail) {
  const items = block.items.map((item, index) => {
    const isLast = tail && index === block.items.length - 1;
    const children = block.loose ? blockNodes(item.blocks, isLast) : tightNodes(item.blocks, isLast);
    if (item.checked === null) return el("li", {}, ...children);
    const box = el("input", { type: "checkbox", disabled: true, checked: item.checked, "aria-label": "Done" });
    return el("li", { class: "task" }, box, el("div", {}, ...children));
  });
  return el(block.ordered ? "ol" : "ul", { start: block.ordered && block.start !== 1 ? block.start : null }, ...items);
}

/** Items of a tight list show their text without paragraphs around it. */
function tightNodes(blocks, tail) {
  return blocks.flatMap((block, index) => {
    const isLast = tail && index === blocks.length - 1;
    return block.type === "paragraph" ? inlineNodes(block.text, isLast) : [blockNode(block, isLast)];
  });
}

function tableNode({ head, aligns, rows }, tail) {
  const cell = (tag, text, column, isLast) => {
    const isNumber = tag === "td" && NUMERIC.test(text);
    const align = aligns[column] || (isNumber ? "right" : "");
    const names = [align && `align-${align}`, isNumber && "is-number"].filter(Boolean).join(" ");
    return el(tag, { class: names || null, scope: tag === "th" ? "col" : null }, ...inlineNodes(text, isLast));
  };
  const isNumeric = head.map((_, column) => rows.length > 0 && rows.every((row) => NUMERIC.test(row[column])));
  const headCells = head.map((text, column) => {
    const node = cell("th", text, column, tail);
    if (isNumeric[column] && !aligns[column]) node.className = "align-right";
    return node;
  });
  const bodyRows = rows.map((row, index) =>
    el("tr", {}, ...row.map((text, column) => cell("td", text, column, tail && index === rows.length - 1))),
  );
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...headCells)), el("tbody", {}, ...bodyRows));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, table);
}

const inlineNodes = (text, tail) => spanNodes(parseInline(text, { tail }));

const spanNodes = (spans) => spans.map(spanNode);

function spanNode(span) {
  switch (span.type) {
    case "code":
      return el("code", { text: span.text });
    case "break":
      return el("br");
    case "strong":
    case "em":
    case "del":
      return el(span.type, {}, ...spanNodes(span.children));
    case "link":
      return el("a", { href: span.href, target: "_blank", rel: "noopener noreferrer" }, ...spanNodes(span.children));
    default:
      return document.createTextNode(span.text);
  }
}
