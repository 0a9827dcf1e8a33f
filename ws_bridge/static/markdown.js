// Markdown → a tree of blocks. Pure: text in, plain objects out; view/markdown.js makes DOM nodes of them.
//
// The dialect is what answers use: headings, paragraphs, fenced code, nested lists, task items, tables, quotes, rules.
// HTML is text. `tail: true` says that the text still grows: what is unfinished at its end is read as what it is most
// likely to become, so that nothing jumps when the rest arrives. Each top-level block carries its source as `raw`:
// equal source means an equal block, which lets the page keep the nodes of everything but the last one.

const MAX_DEPTH = 8; // nested quotes and lists; deeper ones are shown as text

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}>[ \t]?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( +)(.*)|)$/;
const TASK = /^\[([ xX])\][ \t]+/;
const DELIMITER_ROW = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BLANK = /^\s*$/;
// A last line that is only the beginning of something: held back until there is more of it.
const HALF_MARKER = /^(?:\s*>)*\s*(?:[-*+>|]|\d{1,9}[.)]?|#{1,6}|[-*_]{2}|[`~]{1,2})\s*$/;
const HALF_DELIMITER_ROW = /^[\s|:-]*$/;

/** The blocks of `text`, in order. */
export function parseMarkdown(text, { tail = false } = {}) {
  const lines = text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n");
  if (tail && HALF_MARKER.test(lines.at(-1))) lines.pop();
  return parseBlocks(lines, tail, 0);
}

function parseBlocks(lines, tail, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(lines[at])) {
      at += 1;
      continue;
    }
    const { block, next } = readBlock(lines, at, tail, depth);
    blocks.push({ ...block, raw: lines.slice(at, next).join("\n") });
    at = next;
  }
  return blocks;
}

function readBlock(lines, at, tail, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return readFence(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return { block: { type: "heading", level: heading[1].length, text: heading[2] ?? "" }, next: at + 1 };
  if (RULE.test(line)) return { block: { type: "rule" }, next: at + 1 };
  if (depth < MAX_DEPTH && QUOTE.test(line)) return readQuote(lines, at, tail, depth);
  if (depth < MAX_DEPTH && startsItem(line)) return readList(lines, at, tail, depth);
  if (startsTable(lines, at, tail)) return readTable(lines, at, tail);
  return readParagraph(lines, at, tail);
}

function readFence(lines, at) {
  const [, indent, marks, info] = FENCE.exec(lines[at]);
  const end = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`);
  const strip = new RegExp(`^ {0,${indent.length}}`);
  let next = at + 1;
  while (next < lines.length && !end.test(lines[next])) next += 1;
  const isClosed = next < lines.length;
  const text = lines
    .slice(at + 1, next)
    .map((line) => line.replace(strip, ""))
    .join("\n");
  return {
    block: { type: "code", language: info.trim().split(/\s+/)[0] ?? "", text },
    next: isClosed ? next + 1 : next,
  };
}

function readQuote(lines, at, tail, depth) {
  let next = at;
  while (next < lines.length && QUOTE.test(lines[next])) next += 1;
  const inner = lines.slice(at, next).map((line) => line.replace(QUOTE, ""));
  return { block: { type: "quote", blocks: parseBlocks(inner, tail && next === lines.length, depth + 1) }, next };
}

// ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The index of the first line from `at` on that is not blank. */
function nextText(lines, at) {
  let next = at;
  while (next < lines.length && BLANK.test(lines[next])) next += 1;
  return next;
}

const startsItem = (line) => ITEM.test(line) && !RULE.test(line);
const continuesList = (line, marker) => startsItem(line) && isOrdered(ITEM.exec(line)[2]) === isOrdered(marker);
const indentOf = (line) => line.length - line.trimStart().length;
const isOrdered = (marker) => /\d/.test(marker);

function readList(lines, at, tail, depth) {
  const [, lead, firstMarker] = ITEM.exec(lines[at]);
  const ordered = isOrdered(firstMarker);
  const block = {
    type: "list",
    ordered,
    start: ordered ? Number.parseInt(firstMarker, 10) : 1,
    loose: false,
    items: [],
  };
  let next = at;
  while (next < lines.length) {
    const item = ITEM.exec(lines[next]);
    if (!item || RULE.test(lines[next]) || isOrdered(item[2]) !== ordered) break;
    if (item[1].length > lead.length + 1) break;
    const read = readItem(lines, next, item, tail, depth);
    block.items.push(read.item);
    block.loose ||= read.hasGap;
    next = read.next;
  }
  return { block, next };
}

/** One item: its first line, then whatever is indented under it, and lazy continuation lines of a paragraph. */
function readItem(lines, at, [, lead, marker, space = " ", rest = ""], tail, depth) {
  const content = lead.length + marker.length + Math.min(space.length, 4);
  const body = [rest];
  let hasGap = false;
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    if (BLANK.test(line)) {
      const follows = nextText(lines, next);
      if (follows === lines.length) break;
      const isInside = indentOf(lines[follows]) >= lead.length + 2;
      if (!isInside && !continuesList(lines[follows], marker)) break;
      hasGap = true;
      if (!isInside) {
        next = follows;
        break;
      }
      body.push("");
      next = follows - 1;
    } else if (indentOf(line) >= lead.length + 2) {
      body.push(line.slice(Math.min(indentOf(line), content)));
    } else if (BLANK.test(lines[next - 1]) || startsItem(line) || startsBlock(lines, next, tail)) {
      break;
    } else {
      body.push(line.trimStart());
    }
  }
  const task = TASK.exec(body[0]);
  if (task) body[0] = body[0].slice(task[0].length);
  const blocks = parseBlocks(body, tail && next === lines.length, depth + 1);
  return { item: { checked: task ? task[1] !== " " : null, blocks }, hasGap, next };
}

// ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function startsTable(lines, at, tail) {
  const line = lines[at];
  if (!line.includes("|")) return false;
  const under = lines[at + 1];
  if (under !== undefined && under.includes("-") && DELIMITER_ROW.test(under)) {
    return splitRow(under).length === splitRow(line).length || (tail && at + 2 === lines.length);
  }
  if (!tail || !line.trimStart().startsWith("|")) return false;
  return under === undefined || (at + 2 === lines.length && HALF_DELIMITER_ROW.test(under));
}

function readTable(lines, at, tail) {
  const head = splitRow(lines[at]);
  const aligns = splitRow(lines[at + 1] ?? "").map(alignOf);
  let next = Math.min(at + 2, lines.length);
  const rows = [];
  while (next < lines.length && !BLANK.test(lines[next]) && lines[next].includes("|")) {
    rows.push(fit(splitRow(lines[next]), head.length));
    next += 1;
  }
  return { block: { type: "table", head, aligns: head.map((_, column) => aligns[column] ?? ""), rows }, next };
}

const fit = (cells, width) => Array.from({ length: width }, (_, column) => cells[column] ?? "");

function alignOf(cell) {
  const left = cell.startsWith(":");
  const right = cell.endsWith(":") && cell.length > 1;
  return left && right ? "center" : right ? "right" : left ? "left" : "";
}

function splitRow(line) {
  const cells = [];
  let cell = "";
  const text = line.trim();
  for (let at = text.startsWith("|") ? 1 : 0; at < text.length; at += 1) {
    if (text[at] === "\\" && text[at + 1] === "|") {
      cell += "|";
      at += 1;
    } else if (text[at] === "|") {
      cells.push(cell.trim());
      cell = "";
    } else {
      cell += text[at];
    }
  }
  if (cell.trim() || !text.endsWith("|")) cells.push(cell.trim());
  return cells;
}

// ── paragraphs ──────────────────────────────────────────────────────────────────────────────────────────────────────

function readParagraph(lines, at, tail) {
  let next = at + 1;
  while (next < lines.length && !BLANK.test(lines[next]) && !startsBlock(lines, next, tail)) next += 1;
  const text = lines
    .slice(at, next)
    .map((line) => line.trimStart())
    .join("\n")
    .trimEnd();
  return { block: { type: "paragraph", text }, next };
}

function startsBlock(lines, at, tail) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  if (startsItem(line)) {
    const [, , marker] = ITEM.exec(line);
    return !isOrdered(marker) || Number.parseInt(marker, 10) === 1; // "in\n2024. …" is prose
  }
  return startsTable(lines, at, tail);
}
