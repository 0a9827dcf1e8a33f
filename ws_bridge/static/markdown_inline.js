// Markdown inside a line → a tree of spans. Pure.
//
// Nodes: {type: "text", text}, {type: "code", text}, {type: "break"}, {type: "strong" | "em" | "del", children},
// {type: "link", href, children}. Only http, https and mailto become links; images become links to the image, for a
// page that loads pictures from an answer would tell strangers who reads it.
// `tail: true`: the text still grows, so an unclosed mark is taken as if it closed at the end.

const MAX_DEPTH = 12;
const MAX_LABEL = 1000; // characters of a link's text
const MAX_URL = 2000;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const BARE_URL = /^https?:\/\/[^\s<>]+/;
const AUTOLINK = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/;
const SAFE_PROTOCOLS = new Set(["http:", "https:", "mailto:"]);

/** The spans of `source`, in order. */
export function parseInline(source, { tail = false } = {}) {
  return new InlineReader(source, tail, 0).read();
}

/** The address as the page may use it, or null if it is not absolute or not of a harmless scheme. */
export function safeUrl(text) {
  if (text.length > MAX_URL) return null;
  try {
    const url = new URL(text);
    return SAFE_PROTOCOLS.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

class InlineReader {
  #source;
  #tail;
  #depth;
  #at = 0;
  #nodes = [];
  #text = "";
  // Marks that do not close after some place do not close after a later one: hostile text stays linear.
  #neverCloses = new Set();

  constructor(source, tail, depth) {
    this.#source = source;
    this.#tail = tail;
    this.#depth = depth;
  }

  read() {
    while (this.#at < this.#source.length) {
      if (!this.#readMark()) this.#take(1);
    }
    this.#flush();
    return this.#nodes;
  }

  #readMark() {
    switch (this.#source[this.#at]) {
      case "\\":
        return this.#readEscape();
      case "\n":
        return this.#readNewline();
      case "`":
        return this.#readCode();
      case "!":
        return this.#source[this.#at + 1] === "[" && this.#readLink(this.#at + 1);
      case "[":
        return this.#readLink(this.#at);
      case "<":
        return this.#readAutolink();
      case "*":
      case "_":
      case "~":
        return this.#readEmphasis();
      case "h":
        return this.#readBareUrl();
      default:
        return false;
    }
  }

  #take(length) {
    this.#text += this.#source.slice(this.#at, this.#at + length);
    this.#at += length;
    return true;
  }

  #flush() {
    if (this.#text) this.#nodes.push({ type: "text", text: this.#text });
    this.#text = "";
  }

  #push(node, next) {
    this.#flush();
    this.#nodes.push(node);
    this.#at = next;
    return true;
  }

  #children(from, to, tail = false) {
    const inner = this.#source.slice(from, to);
    if (this.#depth >= MAX_DEPTH) return [{ type: "text", text: inner }];
    return new InlineReader(inner, tail, this.#depth + 1).read();
  }

  #readEscape() {
    const next = this.#source[this.#at + 1];
    if (next === "\n") return this.#push({ type: "break" }, this.#at + 2);
    if (next === undefined || !PUNCTUATION.test(next)) return false;
    this.#text += next;
    this.#at += 2;
    return true;
  }

  #readNewline() {
    const isHard = this.#text.endsWith("  ");
    this.#text = this.#text.trimEnd();
    if (isHard) return this.#push({ type: "break" }, this.#at + 1);
    this.#text += "\n";
    this.#at += 1;
    return true;
  }

  #readCode() {
    const length = runLength(this.#source, this.#at);
    const from = this.#at + length;
    const to = this.#closingTicks(from, length);
    if (to >= 0) return this.#push({ type: "code", text: trimCode(this.#source.slice(from, to)) }, to + length);
    if (!this.#tail) return this.#take(length);
    const rest = this.#source.slice(from);
    return rest ? this.#push({ type: "code", text: rest.trimStart() }, this.#source.length) : this.#skipRest();
  }

  #closingTicks(from, length) {
    const mark = "`".repeat(length);
    if (this.#neverCloses.has(mark)) return -1;
    for (let at = this.#source.indexOf("`", from); at >= 0;) {
      const found = runLength(this.#source, at);
      if (found === length) return at;
      at = this.#source.indexOf("`", at + found);
    }
    this.#neverCloses.add(mark);
    return -1;
  }

  /** `[label](address "title")`; `at` is the place of the bracket. An unsafe address leaves the label as text. */
  #readLink(at) {
    const labelEnd = closingBracket(this.#source, at);
    if (labelEnd < 0) return this.#readOpenLabel(at);
    const children = () => this.#children(at + 1, labelEnd);
    if (this.#source[labelEnd + 1] !== "(") return false;
    const target = /^\(\s*<?([^\s<>]*?)>?(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)$/.exec(balanced(this.#source, labelEnd + 1));
    if (target) {
      const href = safeUrl(target[1]);
      const next = labelEnd + 1 + target[0].length;
      if (href) return this.#push({ type: "link", href, children: children() }, next);
      this.#flush();
      this.#nodes.push(...children());
      this.#at = next;
      return true;
    }
    if (!this.#tail || this.#source.indexOf(")", labelEnd) >= 0) return false;
    this.#flush(); // the address is still on its way: its label is readable already
    this.#nodes.push(...children());
    return this.#skipRest();
  }

  #readOpenLabel(at) {
    const rest = this.#source.slice(at + 1);
    if (!this.#tail || rest.length > MAX_LABEL || rest.includes("]") || !/^(?:$|\p{L})/u.test(rest)) return false;
    this.#at = at + 1;
    return true;
  }

  #readAutolink() {
    const found = AUTOLINK.exec(this.#source.slice(this.#at, this.#at + MAX_URL));
    const href = found && safeUrl(found[1]);
    if (!href) return false;
    return this.#push({ type: "link", href, children: [{ type: "text", text: found[1] }] }, this.#at + found[0].length);
  }

  #readBareUrl() {
    if (this.#at > 0 && WORD.test(this.#source[this.#at - 1])) return false;
    const found = BARE_URL.exec(this.#source.slice(this.#at, this.#at + MAX_URL));
    if (!found) return false;
    let text = found[0].replace(/[.,;:!?'"*_~|\]]+$/, "");
    if (text.endsWith(")") && !text.includes("(")) text = text.replace(/\)+$/, "");
    const href = safeUrl(text);
    if (!href) return false;
    return this.#push({ type: "link", href, children: [{ type: "text", text }] }, this.#at + text.length);
  }

  #readEmphasis() {
    const character = this.#source[this.#at];
    const length = runLength(this.#source, this.#at);
    if (character === "~" && length !== 2) return this.#take(length);
    const mark = character.repeat(length >= 2 ? 2 : 1);
    const from = this.#at + mark.length;
    const next = this.#source[this.#at + length];
    if (next === undefined && this.#tail) return this.#skipRest();
    if (next === undefined || /\s/.test(next)) return this.#take(length);
    if (character === "_" && this.#at > 0 && WORD.test(this.#source[this.#at - 1])) return this.#take(length);
    const type = character === "~" ? "del" : mark.length === 2 ? "strong" : "em";
    const to = this.#closingMark(from, mark);
    if (to >= 0) return this.#push({ type, children: this.#children(from, to) }, to + mark.length);
    if (!this.#tail || this.#depth >= MAX_DEPTH) return this.#take(mark.length);
    return this.#push({ type, children: this.#children(from, this.#source.length, true) }, this.#source.length);
  }

  /** Where the mark closes, or -1. Code spans and escapes are stepped over; runs of other lengths belong to others. */
  #closingMark(from, mark) {
    if (this.#neverCloses.has(mark)) return -1;
    for (let at = from; at < this.#source.length;) {
      const character = this.#source[at];
      if (character === "\\") at += 2;
      else if (character === "`") at = this.#afterCode(at);
      else if (character !== mark[0]) at += 1;
      else {
        const length = runLength(this.#source, at);
        if (this.#closes(at, length, mark, from)) return at + length - mark.length;
        at += length;
      }
    }
    this.#neverCloses.add(mark);
    return -1;
  }

  #closes(at, length, mark, from) {
    const isLengthRight = mark.length === 2 ? length >= 2 : length !== 2;
    if (!isLengthRight || at === from || /\s/.test(this.#source[at - 1])) return false;
    const after = this.#source[at + length];
    return mark[0] !== "_" || after === undefined || !WORD.test(after);
  }

  #afterCode(at) {
    const length = runLength(this.#source, at);
    const end = this.#closingTicks(at + length, length);
    return end < 0 ? at + length : end + length;
  }

  #skipRest() {
    this.#at = this.#source.length;
    return true;
  }
}

function runLength(source, at) {
  let end = at;
  while (source[end] === source[at]) end += 1;
  return end - at;
}

function closingBracket(source, at) {
  let depth = 0;
  const end = Math.min(source.length, at + MAX_LABEL);
  for (let index = at; index < end; index += 1) {
    if (source[index] === "\\") index += 1;
    else if (source[index] === "[") depth += 1;
    else if (source[index] === "]" && (depth -= 1) === 0) return index;
  }
  return -1;
}

/** The text from the parenthesis at `at` to its partner. */
function balanced(source, at) {
  let depth = 0;
  const end = Math.min(source.length, at + MAX_URL);
  for (let index = at; index < end; index += 1) {
    if (source[index] === "(") depth += 1;
    else if (source[index] === ")" && (depth -= 1) === 0) return source.slice(at, index + 1);
  }
  return "";
}

const trimCode = (text) => {
  const line = text.replaceAll("\n", " ");
  return line.startsWith(" ") && line.endsWith(" ") && line.trim() ? line.slice(1, -1) : line;
};
