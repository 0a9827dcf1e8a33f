// Markdown as a tree: the dialect, what must never become a link, growing text, and hostile text.

import assert from "node:assert/strict";
import { test } from "node:test";

import { parseInline, safeUrl } from "../../ws_bridge/static/markdown_inline.js";
import { parseMarkdown } from "../../ws_bridge/static/markdown.js";

const types = (text, options) => parseMarkdown(text, options).map((block) => block.type);

/** Spans as short text: strong <b>, em <i>, del <s>, code <c>, links <a:href>. */
function short(source, options) {
    const names = { strong: "b", em: "i", del: "s" };
    const of = (span) => {
        if (span.type === "text") return span.text;
        if (span.type === "break") return "<br>";
        if (span.type === "code") return `<c>${span.text}</c>`;
        const inner = span.children.map(of).join("");
        return span.type === "link"
            ? `<a:${span.href}>${inner}</a>`
            : `<${names[span.type]}>${inner}</${names[span.type]}>`;
    };
    return parseInline(source, options).map(of).join("");
}

/** The readable text of a tree, without any mark. */
const words = (text, options) => JSON.stringify(parseMarkdown(text, options).map(({ raw: _raw, ...block }) => block));

test("blocks", () => {
    const text =
        "# One\n\ntext\nmore\n\n---\n\n> quote\n\n- item\n\n1. first\n\n```js\nlet a;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |";
    assert.deepEqual(types(text), ["heading", "paragraph", "rule", "quote", "list", "list", "code", "table"]);
});

test("a heading needs a space, and may close itself", () => {
    assert.deepEqual(parseMarkdown("### Cost ##")[0], { type: "heading", level: 3, text: "Cost", raw: "### Cost ##" });
    assert.deepEqual(types("#hash"), ["paragraph"]);
});

test("fenced code keeps everything as it is, until its own fence", () => {
    const [block] = parseMarkdown("````sql x\n```\n*a*\n````");
    assert.deepEqual([block.language, block.text], ["sql", "```\n*a*"]);
});

test("lists: nested, ordered with a start, tasks, with continuation lines", () => {
    const [list] = parseMarkdown("3. one\n   - a\n   - b\n     more\n4. two\n- other");
    assert.deepEqual([list.ordered, list.start, list.items.length], [true, 3, 2]);
    const nested = list.items[0].blocks[1];
    assert.deepEqual(
        nested.items.map((item) => item.blocks[0].text),
        ["a", "b\nmore"],
    );
    const [tasks] = parseMarkdown("- [x] done\n- [ ] open\n- plain");
    assert.deepEqual(
        tasks.items.map((item) => item.checked),
        [true, false, null],
    );
});

test("a list is loose when a blank line parts its items", () => {
    assert.equal(parseMarkdown("- a\n- b")[0].loose, false);
    const [list, after] = parseMarkdown("- a\n\n- b\n\nafter");
    assert.deepEqual([list.loose, list.items.length, after.type], [true, 2, "paragraph"]);
});

test("a number at the start of a line of prose is no list", () => {
    assert.deepEqual(types("It was in\n2024. A good year."), ["paragraph"]);
});

test("tables: alignment, escaped pipes, short and long rows", () => {
    const [table] = parseMarkdown("| a | b | c |\n|:--|:-:|--:|\n| x \\| y | 2 |\n| 1 | 2 | 3 | 4 |");
    assert.deepEqual(table.aligns, ["left", "center", "right"]);
    assert.deepEqual(table.rows, [
        ["x | y", "2", ""],
        ["1", "2", "3"],
    ]);
    assert.deepEqual(types("a | b\nno table"), ["paragraph"]);
});

test("emphasis, strong, deleted, code, breaks and escapes", () => {
    assert.equal(
        short("a **b *c*** ~~d~~ `e *f*` __g__ _h_"),
        "a <b>b <i>c</i></b> <s>d</s> <c>e *f*</c> <b>g</b> <i>h</i>",
    );
    assert.equal(short("***both***"), "<b><i>both</i></b>");
    assert.equal(short("2 * 3 * 4, snake_case_name, 5*"), "2 * 3 * 4, snake_case_name, 5*");
    assert.equal(short("\\*not\\* `` a`b ``"), "*not* <c>a`b</c>");
    assert.equal(short("one  \ntwo\\\nthree\nfour"), "one<br>two<br>three\nfour");
});

test("links: http, https and mailto; titles, parentheses, bare addresses", () => {
    assert.equal(short('[a](https://x.org/b_(c) "t")'), "<a:https://x.org/b_(c)>a</a>");
    assert.equal(
        short("<https://x.org/> <mailto:a@b.c>"),
        "<a:https://x.org/>https://x.org/</a> <a:mailto:a@b.c>mailto:a@b.c</a>",
    );
    assert.equal(
        short("see https://x.org/a, (http://y.org/b)."),
        "see <a:https://x.org/a>https://x.org/a</a>, (<a:http://y.org/b>http://y.org/b</a>).",
    );
    assert.equal(short("![chart](https://x.org/c.png)"), "<a:https://x.org/c.png>chart</a>");
});

test("nothing else becomes a link, however it is written", () => {
    const hostile = [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\tscript:alert(1)",
        " javascript:alert(1)",
        "data:text/html,x",
        "vbscript:x",
        "file:///etc/passwd",
        "//evil.org",
        "/local",
        "blob:x",
    ];
    for (const address of hostile) {
        assert.equal(safeUrl(address), null, address);
        assert.ok(!short(`[a](${address})`).includes("<a:"), address);
        assert.ok(!short(`<${address}>`).includes("<a:"), address);
    }
});

test("HTML is text", () => {
    assert.equal(short("<img src=x onerror=alert(1)> <b>"), "<img src=x onerror=alert(1)> <b>");
    assert.deepEqual(types("<script>\nalert(1)\n</script>"), ["paragraph"]);
});

test("unfinished marks at the end of a growing text read as what they become", () => {
    const tail = { tail: true };
    assert.equal(short("a **bo", tail), "a <b>bo</b>");
    assert.equal(short("a **", tail), "a ");
    assert.equal(short("a `co", tail), "a <c>co</c>");
    assert.equal(short("see [the do", tail), "see the do");
    assert.equal(short("see [the docs](https://x.o", tail), "see the docs");
    assert.equal(short("a **bo"), "a **bo");
});

test("the beginning of a block is held back until there is more of it", () => {
    for (const half of ["-", "1.", "##", "|", ">", "``", "--"]) {
        assert.deepEqual(types(`text\n\n${half}`, { tail: true }), ["paragraph"], half);
    }
    assert.deepEqual(types("```js\nlet", { tail: true }), ["code"]);
    assert.equal(parseMarkdown("```\na\n``", { tail: true })[0].text, "a");
});

test("a growing table is a table from its first row on", () => {
    const text = "| Model | Cost |\n|---|--:|\n| gpt | 3 |\n";
    for (let length = 3; length <= text.length; length += 1) {
        assert.deepEqual(types(text.slice(0, length), { tail: true }), ["table"], text.slice(0, length));
    }
});

test("blocks before the last one do not change while a text grows", () => {
    const text = "# A\n\nb **c** d\n\n- e\n  - f\n- g\n\n| h | i |\n|---|---|\n| j | k |\n\n```\nl\n```\n\n> m\n\nlast";
    let settledBlocks = [];
    for (let length = 1; length <= text.length; length += 1) {
        const blocks = parseMarkdown(text.slice(0, length), { tail: true }).map((block) => JSON.stringify(block));
        const before = blocks.slice(0, -1);
        assert.deepEqual(before.slice(0, settledBlocks.length), settledBlocks, text.slice(0, length));
        settledBlocks = before;
    }
    assert.equal(words(text, { tail: true }), words(text));
});

test("hostile text takes time in proportion to its length", () => {
    const size = 100_000;
    const hostile = [
        "[",
        "*a ",
        "**a",
        "_a",
        "`a``",
        "[](",
        "![",
        "> ",
        "- a\n\n",
        "a|b\n",
        "*a**b",
        "<http://",
        "\\",
        "|",
        "- ",
        "http://(",
        "\n",
    ];
    for (const piece of hostile) {
        const text = piece.repeat(size / piece.length);
        const began = process.cpuUsage(); // a busy machine makes it later, not more work
        for (const block of parseMarkdown(text, { tail: true })) parseInline(block.text ?? "", { tail: true });
        const usedMs = process.cpuUsage(began).user / 1000;
        assert.ok(usedMs < 3000, `${JSON.stringify(piece)} took ${usedMs} ms`);
    }
    parseMarkdown(`${"> ".repeat(5000)}x`);
    parseMarkdown(Array.from({ length: 500 }, (_, depth) => `${"  ".repeat(depth)}- x`).join("\n"));
});
