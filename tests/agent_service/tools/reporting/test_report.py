"""A report rests on cited calls: its tables are theirs, its numbers lead to them, and nothing in it acts or loads."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.engine.tool import ToolError, ToolRecord
from agent_service.tools.reporting.create_report import CreateReportArgs, create_report
from agent_service.tools.reporting.figures import figure
from agent_service.tools.reporting.html import as_html
from agent_service.tools.reporting.rendering import MAX_HTML_CHARACTERS, Renderer
from agent_service.tools.reporting.report import Drawing, Report, as_markdown
from agent_service.tools.reporting.tables import tables
from agent_service.tools.reporting.tools import reporting_tools
from tests.support.datasets import NOW, KeptArtifacts, StoppedClock, items, part
from tests.support.evidence import COSTS, USAGE, a_record, an_option, citing, options_record

USED = a_record("usage_summary", USAGE, args={"group_by": ["model", "day"]})
PAID = a_record("cost_breakdown", COSTS)
OPTIONS = options_record(an_option("a"))
EVIL = '<img src="http://evil.example/x.png" onerror="alert(1)"> [x](javascript:alert(1)) ![y](http://evil.example/y)'


@dataclass
class Page(HTMLParser):
    """The tags, links and images of a page, and the text of its tables."""

    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    _in_cell: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in {"td", "th"}:
            self.cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data

    def of(self, tag: str, name: str) -> list[str]:
        return [value for found, key, value in self.attributes if (found, key) == (tag, name)]


async def report(
    *records: ToolRecord, charts: Mapping[str, str] | None = None, shown: Sequence[str] = (), **args: object
) -> tuple[JsonObject, Mapping[str, bytes]]:
    """Make a report on all records, with a chart of each kind → call."""
    tools = {tool.name: tool for tool in reporting_tools(StoppedClock())}
    before = list(records)
    drawn = []
    for number, (kind, call_id) in enumerate((charts or {}).items()):
        run = citing(*before, call_id=f"4-reporting.c{number}")
        tool = tools["render_chart"]
        output = await tool.run(run, tool.args.model_validate({"kind": kind, "tool_call_id": call_id}))
        drawn.append(a_record("render_chart", output.result, call_id=f"4-reporting.c{number}", agent="reporting"))
    run = citing(*before, *drawn)
    given: dict[str, object] = {
        "title": "Costs of March",
        "sources": [record.tool_call_id for record in records],
        "charts": [*(record.tool_call_id for record in drawn), *shown],
        **args,
    }
    tool = tools["create_report"]
    result = (await tool.run(run, tool.args.model_validate(given))).result
    assert isinstance(run.artifacts, KeptArtifacts)
    return result, {name: content for name, (_, content) in run.artifacts.kept.items()}


def read(content: bytes) -> Page:
    page = Page()
    page.feed(content.decode())
    return page


async def test_tables_hold_the_cited_values_and_say_where_they_are_from() -> None:
    result, files = await report(USED, PAID, OPTIONS)
    cells = read(files["report.html"]).cells
    assert {"gpt-4o", "$40.25", "300", "45,000", "12.5 %", "$42.50"} <= set(cells)
    assert {"Option a", "$12.50", "25.0 %", "low", "M", "Send them to gpt-4o again."} <= set(cells)
    text = files["report.md"].decode()
    for title in ("## Data", "## Optimizations", "## What is missing", "### Source 1", "### Source 3"):
        assert f"\n{title}\n" in text
    assert "**user**: Costs by user are not known. Add a column user." in text
    assert '"group\\_by"' in text
    assert text.count("(#source-1)") == 3
    page = read(files["report.html"])
    assert set(page.of("a", "href")) == {"#source-1", "#source-2", "#source-3"}
    assert page.of("h3", "id") == ["source-1", "source-2", "source-3"]
    assert [(one["number"], one["tool_call_id"]) for one in items(result, "sources")] == [
        (1, USED.tool_call_id),
        (2, PAID.tool_call_id),
        (3, OPTIONS.tool_call_id),
    ]


@pytest.mark.parametrize(("records", "level"), [((USED,), "full"), ((USED, PAID), "partial")], ids=["full", "partial"])
async def test_a_report_says_how_far_it_goes(records: tuple[ToolRecord, ...], level: str) -> None:
    result, files = await report(*records)
    assert result["level"] == level
    assert f"A {level} report on march.csv, made on 2026-06-01 12:00 UTC." in files["report.md"].decode()
    assert result["pdf"] == "not asked for"


@pytest.mark.parametrize(
    "record",
    [
        a_record("list_datasets", {"datasets": []}),
        a_record("usage_summary", {"totals": {"requests": 0}}),
    ],
    ids=["no-measurement", "no-requests"],
)
async def test_without_data_no_report_is_made_up(record: ToolRecord) -> None:
    with pytest.raises(ToolError, match=r"a report is not made up\. Bring a usage log"):
        await report(record)


async def test_a_wrong_number_is_refused_and_a_right_one_leads_to_its_source() -> None:
    right = [{"section": "overview", "text": "We paid **$42.50**.\n\n- chat: $30.50"}]
    _, files = await report(USED, PAID, texts=right)
    assert "We paid **\\$42.50 [\\[1\\]](#source-1)**." in files["report.md"].decode()
    wrong = [{"section": "overview", "text": "We paid $45.20 for 300 requests."}]
    with pytest.raises(ToolError, match=r"states \$45\.20, which none"):
        await report(USED, PAID, texts=wrong)
    with pytest.raises(ToolError, match="states 99 %"):
        await report(USED, title="Save 99 % now")


async def test_charts_are_drawn_in_and_named() -> None:
    result, files = await report(
        USED, PAID, charts={"cost_by_group": PAID.tool_call_id, "cost_over_time": USED.tool_call_id}
    )
    page = read(files["report.html"])
    images = page.of("img", "src")
    assert len(images) == 2
    assert all(image.startswith("data:image/svg+xml;base64,") for image in images)
    assert page.of("img", "alt")[0].startswith(("Cost by feature: chat: $30.50", "Cost by day"))
    assert "](cost-by-group.svg)" in files["report.md"].decode()
    assert result["charts"] == ["Cost by feature", "Cost by day"]


async def test_a_call_that_drew_nothing_is_no_chart() -> None:
    with pytest.raises(ToolError, match="charts are those of render_chart"):
        await report(USED, shown=[USED.tool_call_id])


async def test_nothing_of_hostile_data_acts_or_loads() -> None:
    dataset: JsonObject = {"name": f"{EVIL}.csv"}
    hostile = a_record(
        "cost_breakdown",
        {
            "dataset": dataset,
            "group_by": [EVIL],
            "total_cost_usd": 3.0,
            "groups": [{"name": EVIL, "cost_usd": 3.0}, {"name": "a|b\n# c", "cost_usd": 1.0}],
            "missing": [{"column": EVIL, "why_it_matters": EVIL, "how_to_supply": EVIL}],
            EVIL: [{EVIL: 1}],
        },
        args={"x": EVIL, "close": "</script></style>"},
    )
    _, files = await report(
        hostile,
        title=f"T {EVIL}",
        texts=[{"section": "overview", "text": EVIL}],
        charts={"cost_by_group": hostile.tool_call_id},
    )
    page = read(files["report.html"])
    assert set(page.tags) <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "h1",
            "h2",
            "h3",
            "p",
            "strong",
            "em",
            "ul",
            "li",
            "a",
            "img",
        ),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    assert {value for name in ("src", "href") for value in page.of("a", name)} <= {"#source-1"}
    assert all(value.startswith("data:image/svg+xml;base64,") for value in page.of("img", "src"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page.of("meta", "content")
    assert "a|b # c" in page.cells


class WithoutPdf(Renderer):
    """Renders no PDF: it says so, or fails with these words."""

    def __init__(self, words: str = "") -> None:
        super().__init__()
        self._words = words

    async def pdf(self, html: str) -> bytes | None:
        if self._words:
            raise ToolError(self._words)
        return None


@pytest.mark.parametrize(
    ("renderer", "said"),
    [
        (WithoutPdf(), "install apex-agents[pdf], or print the HTML"),
        (WithoutPdf("It took too long."), "It took too long."),
    ],
    ids=["absent", "failed"],
)
async def test_a_report_without_its_pdf_is_still_a_report(renderer: Renderer, said: str) -> None:
    run = citing(USED)
    args = CreateReportArgs(title="T", sources=[USED.tool_call_id], pdf=True)
    output = await create_report(renderer, StoppedClock(), run, args)
    assert said in str(output.result["pdf"])
    assert said in output.summary
    assert [part(one, "name") for one in items(output.result, "files")] == ["report.md", "report.html"]


async def test_a_page_that_is_too_long_becomes_no_pdf() -> None:
    with pytest.raises(ToolError, match="too long for a PDF"):
        await Renderer().pdf("x" * (MAX_HTML_CHARACTERS + 1))


@pytest.mark.parametrize(("rows", "shown", "more"), [(25, 25, ""), (26, 25, "… and 1 more.")], ids=["most", "too-many"])
def test_a_table_shows_its_first_rows_and_counts_the_rest(rows: int, shown: int, more: str) -> None:
    found: list[JsonValue] = [{"name": f"n{number}", "cost_usd": number} for number in range(rows)]
    text = "\n".join(tables(a_record("cost_breakdown", {"group_by": ["user"], "groups": found}), 1))
    assert text.count("| n") == shown
    assert text.count("… and") == bool(more)
    assert more in text
    assert "**By user** [\\[1\\]](#source-1)" in text


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("cost_usd", 1234.5, "$1,234.50"),
        ("cost_per_request_usd", 0.004998, "$0.004998"),
        ("saving_usd", -3.0, "-$3.00"),
        ("saving_percent", 12.345, "12.3 %"),
        ("share_of_requests", 0.125, "12.5 %"),
        ("error_rate", 0.5, "50.0 %"),
        ("latency_ms", 812.4, "812 ms"),
        ("p95", 30_000, "30.0 s"),
        ("requests", 19_366, "19,366"),
        ("mean_tokens", 2.5, "2.5"),
        ("start", "2026-03-01T10:20:30Z", "2026-03-01 10:20 UTC"),
        ("fits", True, "yes"),
        ("limit", None, ""),
    ],
)
def test_a_figure_reads_by_its_name(key: str, value: JsonValue, shown: str) -> None:
    assert figure(key, value) == shown


pieces = st.sampled_from([*"ab<>\"'&/\\|`*_[]()!#:=;\n -.1", "http://e", "<script>", "](http://e)", " onload=x"])
names = st.lists(pieces, max_size=12).map("".join)


@settings(max_examples=25, deadline=None)
@given(names, names, names)
def test_whatever_data_is_called_the_page_neither_acts_nor_loads(dataset: str, group: str, column: str) -> None:
    record = a_record(
        "cost_breakdown",
        {
            "dataset": {"name": dataset},
            "group_by": [column],
            "groups": [{column: 1, "name": f"g{group}", "cost_usd": 2}],
        },
        args={column: group},
    )
    report_ = Report(group, (record,), (Drawing("c.svg", group, dataset, 1, "data"),), {}, NOW)
    page = read(as_html(as_markdown(report_), dataset, {"c.svg": "<svg/>"}).encode())
    assert not {"script", "iframe", "object", "embed", "link", "form", "svg", "base"} & set(page.tags)
    assert all(value.startswith("data:image/svg+xml;base64,") for value in page.of("img", "src"))
    assert set(page.of("a", "href")) <= {"#source-1"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert " ".join(f"g{group}".split()) in page.cells


def test_images_of_other_names_and_links_to_other_places_are_left_out() -> None:
    markdown = "![a](http://e/a.svg) ![b](b.svg) ![ok](ok.svg) [l](http://e/) [s](#source-1) <b onclick=x>raw</b>"
    page = read(as_html(markdown, "t</title><script>", {"ok.svg": "<svg/>"}).encode())
    assert [value[:19] for value in page.of("img", "src")] == ["data:image/svg+xml;"]
    assert page.of("a", "href") == ["#source-1"]
    assert "script" not in page.tags
    assert "b" not in page.tags


async def test_the_pdf_holds_the_text_or_its_absence_is_said() -> None:
    result, files = await report(USED, PAID, charts={"cost_by_group": PAID.tool_call_id}, pdf=True)
    if "not available" in str(result["pdf"]):
        pytest.skip("WeasyPrint is not installed here")
    assert result["pdf"] == "made"
    assert files["report.pdf"].startswith(b"%PDF")
    from pypdf import PdfReader

    text = "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(files["report.pdf"])).pages)
    assert "Costs of March" in text
    assert "$42.50" in text
    assert [part(one, "name") for one in items(result, "files")] == ["report.md", "report.html", "report.pdf"]
