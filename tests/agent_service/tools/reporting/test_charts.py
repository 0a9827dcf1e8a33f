"""Charts show what cited calls measured, to the value; where a call has nothing for one, none is made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from agent_service.engine.events import JsonValue
from agent_service.engine.tool import ToolError, ToolOutput, ToolRecord
from agent_service.tools.reporting import rendering, svg
from agent_service.tools.reporting.charts import described, specification
from agent_service.tools.reporting.rendering import Renderer
from agent_service.tools.reporting.series import MAX_POINTS, Kind, Series, series
from agent_service.tools.reporting.tools import reporting_tools
from tests.support.datasets import KeptArtifacts, StoppedClock, part
from tests.support.evidence import COSTS, PATTERN, USAGE, a_record, an_option, citing, options_record
from tests.support.storage import in_own_loop

USED = a_record("usage_summary", USAGE)
PAID = a_record("cost_breakdown", COSTS)
HOURS = a_record("usage_pattern", PATTERN)
OPTIONS = options_record(an_option("a", saving=12.5), an_option("b", saving=4.0))
EVIL = 'http://evil.example/x.js"><script>alert(1)</script>'
HOSTILE = a_record(
    "cost_breakdown",
    {"group_by": ["feature"], "groups": [{"name": EVIL, "cost_usd": 3.0}, {"name": "b", "cost_usd": 1.5}]},
)

DRAWN: Mapping[str, tuple[Kind, ToolRecord, str]] = {
    "cost_over_time": ("cost_over_time", USED, ""),
    "cost_by_group": ("cost_by_group", PAID, ""),
    "latency_percentiles": ("latency_percentiles", USED, "model"),
    "requests_over_time": ("requests_over_time", HOURS, ""),
    "usage_by_hour": ("usage_by_hour", HOURS, ""),
    "savings_by_option": ("savings_by_option", OPTIONS, ""),
    "savings_waterfall": ("savings_waterfall", OPTIONS, "b"),
    "hostile": ("cost_by_group", HOSTILE, ""),
}


def found(kind: Kind, record: ToolRecord, which: str = "") -> Series:
    shown = series(kind, record, which)
    assert shown is not None
    return shown


@pytest.fixture(scope="module")
def images() -> Mapping[str, ET.Element]:
    """Every chart, drawn once, as XML."""
    shown = {name: (kind, found(kind, record, which)) for name, (kind, record, which) in DRAWN.items()}
    specs = [specification(kind, one) for kind, one in shown.values()]
    drawn: Sequence[str] = in_own_loop(lambda: Renderer().svgs(specs))
    described_ = [
        svg.described(one, part_.title, described(part_)) for one, (_, part_) in zip(drawn, shown.values(), strict=True)
    ]
    return dict(zip(shown, map(ET.fromstring, described_), strict=True))


def texts(image: ET.Element) -> list[str]:
    return [element.text or "" for element in image.iter(f"{svg.SVG}text")]


def labels(image: ET.Element) -> str:
    return "\n".join(element.get("aria-label", "") for element in image.iter())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cost_by_group", ["chat", "$30.50", "mail", "$9.75", "all others", "$2.25", "USD"]),
        ("latency_percentiles", ["gpt-4o", "gpt-4o-mini", "2,500 ms", "300 ms", "p50", "p95", "p99"]),
        ("savings_by_option", ["Option a", "$12.50", "Option b", "$4.00"]),
        ("savings_waterfall", ["Cost now", "$50.00", "Saving", "-$4.00", "Cost after", "$46.00"]),
    ],
)
def test_the_values_stand_in_the_chart(images: Mapping[str, ET.Element], name: str, shown: list[str]) -> None:
    assert set(shown) <= set(texts(images[name]))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("cost_over_time", ["USD: 25", "USD: 17.5"]),
        ("requests_over_time", ["requests: 33", "requests: 44"]),
        ("usage_by_hour", ["requests: 10", "requests: 33"]),
    ],
)
def test_the_marks_have_the_values(images: Mapping[str, ET.Element], name: str, values: list[str]) -> None:
    assert all(value in labels(images[name]) for value in values)


def test_bars_are_as_long_as_their_values(images: Mapping[str, ET.Element]) -> None:
    marks = [one for one in images["cost_by_group"].iter(f"{svg.SVG}path") if one.get("aria-roledescription") == "bar"]
    widths = [float(str(one.get("d")).partition("h")[2].partition("v")[0]) for one in marks]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 9.75 / 30.5, 2.25 / 30.5], rel=1e-3)


@pytest.mark.parametrize("name", DRAWN)
def test_every_chart_is_an_image_with_words_and_nothing_that_acts_or_loads(
    images: Mapping[str, ET.Element], name: str
) -> None:
    image = images[name]
    assert image.get("role") == "img"
    assert image.get("aria-label")
    assert [element.tag for element in image][:2] == [f"{svg.SVG}title", f"{svg.SVG}desc"]
    assert image[1].text
    for element in image.iter():
        assert not element.tag.lower().endswith(("script", "foreignobject", "image", "}a"))
        assert not any("href" in key or key.lower().startswith("on") for key in element.attrib)
        assert not any("url(http" in value for value in element.attrib.values())
    background = next(image.iter(f"{svg.SVG}rect"))
    assert background.get("fill") == "#fbfaf7"


@pytest.mark.parametrize(
    "drawing",
    [
        "<script>x</script>",
        '<rect onclick="x"/>',
        '<image href="http://e/x"/>',
        '<rect fill="url(http://e/x)"/>',
        "<foreignObject/>",
        "<",
    ],
    ids=["script", "handler", "image", "url", "foreign", "broken"],
)
def test_a_drawing_that_is_more_is_thrown_away(drawing: str) -> None:
    with pytest.raises(ToolError):
        svg.described(f'<svg xmlns="http://www.w3.org/2000/svg">{drawing}</svg>', "t", "d")


# ---- The data ----


def test_days_are_in_order_and_a_part_of_them_is_said_to_be_one() -> None:
    assert [point.name for point in found("cost_over_time", USED).points] == ["2026-03-01", "2026-03-02"]
    assert found("cost_over_time", USED).note == ""
    cut = a_record(
        "cost_breakdown",
        {"group_by": ["day"], "groups": [{"name": "2026-03-01", "cost_usd": 1}], "other": {"groups": 9}},
    )
    assert "the others are not shown" in found("cost_over_time", cut).note


@pytest.mark.parametrize(("count", "fits"), [(MAX_POINTS, True), (MAX_POINTS + 1, False)], ids=["most", "too-many"])
def test_a_chart_shows_all_points_or_none(count: int, *, fits: bool) -> None:
    points: list[JsonValue] = [{"start": f"2026-03-01T00:00:{number:04}Z", "requests": 1} for number in range(count)]
    record = a_record("usage_pattern", {"series": {"points": points}})
    assert (series("requests_over_time", record, "") is not None) is fits


def test_savings_of_several_options_are_said_not_to_add_up() -> None:
    assert "do not add up" in found("savings_by_option", OPTIONS).note
    assert [point.value for point in found("savings_waterfall", OPTIONS).points] == [50.0, 12.5, 37.5]


# ---- The tool ----


async def drawn(*records: ToolRecord, kind: str, call_id: str, which: str = "") -> tuple[ToolOutput, KeptArtifacts]:
    tool = next(tool for tool in reporting_tools(StoppedClock()) if tool.name == "render_chart")
    run = citing(*records, call_id="4-reporting.c1")
    args = tool.args.model_validate({"kind": kind, "tool_call_id": call_id, "which": which})
    output = await tool.run(run, args)
    assert isinstance(run.artifacts, KeptArtifacts)
    return output, run.artifacts


async def test_the_chart_is_kept_with_what_it_shows() -> None:
    output, artifacts = await drawn(PAID, kind="cost_by_group", call_id=PAID.tool_call_id)
    assert part(output.result, "points", 0) == {"name": "chat", "series": "", "value": 30.5}
    assert (output.result["tool_call_id"], output.result["chart_id"]) == (PAID.tool_call_id, "4-reporting.c1")
    media_type, content = artifacts.kept[str(output.result["name"])]
    assert media_type == "image/svg+xml"
    assert content.startswith(b"<svg ")


@pytest.mark.parametrize(
    ("kind", "call_id", "said"),
    [
        ("cost_by_group", "made-up", "There is no call 'made-up'"),
        ("latency_percentiles", PAID.tool_call_id, r"no data for latency_percentiles.*1-data\.usage_summary"),
        ("usage_by_hour", PAID.tool_call_id, "No call of this run has any"),
    ],
    ids=["unknown", "other", "none"],
)
async def test_no_chart_is_made_of_anything_but_cited_data(kind: str, call_id: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        await drawn(PAID, USED, kind=kind, call_id=call_id)


async def test_what_was_just_drawn_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    renderer = Renderer()
    spec = specification("cost_by_group", found("cost_by_group", PAID))
    (first,) = await renderer.svgs([spec])
    monkeypatch.setattr(rendering, "_CHILD", tmp_path / "gone.py")
    assert await renderer.svgs([spec, spec]) == [first, first]
    with pytest.raises(ToolError):
        await renderer.svgs([{**spec, "width": 10}])


async def test_a_drawing_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(ToolError, match=r"not ready within 0\.01 seconds"):
        await Renderer(charts_timeout_s=0.01).svgs([{"mark": "bar"}])


async def test_a_drawing_that_fails_says_so_without_the_librarys_words() -> None:
    with pytest.raises(ToolError, match=r"^The chart could not be made\. Try again, or ask for less of it\.$"):
        await Renderer().svgs([{"mark": "no such mark", "data": {"url": "http://127.0.0.1:9/x.csv"}}])
