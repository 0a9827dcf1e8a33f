"""Charts as Vega-Lite specifications of our own: what data says is only ever a value in them."""

from collections.abc import Sequence
from typing import Final

from agent_service.engine.events import JsonObject, JsonValue
from agent_service.tools.reporting.series import Kind, Point, Series

WIDTH: Final = 560
"""Of the plot, in pixels."""

HEIGHT: Final = 260
"""Of a plot with upright marks, in pixels."""

ROW_HEIGHT: Final = 26
"""Of one bar that lies, in pixels."""

MAX_NAME_CHARACTERS: Final = 60
"""Of a name at an axis."""

MAX_DESCRIBED: Final = 8
"""Values that the description spells out."""

_INK, _PAPER, _GRID = "#22303c", "#fbfaf7", "#dcdad4"
_ONE, _TWO, _THREE = "#3367a8", "#c9742b", "#7a5ea8"
"""Told apart by people with any kind of colour vision, on a background that fits light and dark pages."""

_CONFIG: Final[JsonObject] = {
    "font": "Helvetica, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": _INK, "titleColor": _INK, "gridColor": _GRID, "labelLimit": 260, "labelFontSize": 11},
    "legend": {"labelColor": _INK, "titleColor": _INK},
    "title": {"color": _INK, "subtitleColor": _INK, "anchor": "start", "fontSize": 15},
}

_PLACED: Final[JsonObject] = {"field": "name", "type": "ordinal", "title": None, "sort": {"field": "place"}}
"""Names in the order of the points."""


def specification(kind: Kind, found: Series) -> JsonObject:
    """Return the chart as Vega-Lite."""
    layer: JsonObject
    match kind:
        case "cost_over_time" | "requests_over_time":
            layer = _over_time(found)
        case "latency_percentiles":
            layer = _grouped(found)
        case "savings_waterfall":
            layer = _waterfall(found)
        case "usage_by_hour":
            layer = _upright(found)
        case _:
            layer = _lying(found)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "background": _PAPER,
        "padding": 16,
        "width": WIDTH,
        "title": {"text": _short(found.title), **({"subtitle": found.note} if found.note else {})},
        "config": _CONFIG,
        **layer,
    }


def described(found: Series) -> str:
    """Return the chart in words, for those who cannot see it."""
    shown = found.points[:MAX_DESCRIBED]
    words = "; ".join(f"{point.name}{f' {point.series}' if point.series else ''}: {point.words}" for point in shown)
    more = len(found.points) - len(shown)
    return f"{words}{f'; and {more} more' if more else ''}. {found.note}".strip()


def _values(points: Sequence[Point]) -> list[JsonValue]:
    return [
        {
            "name": _short(point.name),
            "value": point.value,
            "words": point.words,
            "series": point.series,
            "place": place,
        }
        for place, point in enumerate(points)
    ]


def _over_time(found: Series) -> JsonObject:
    days = all(len(point.name) == len("2026-01-01") for point in found.points)
    x: JsonObject = {"field": "name", "type": "temporal", "title": None, "scale": {"type": "utc"}}
    mark: JsonObject = {"type": "bar", "color": _ONE} if days else {"type": "line", "color": _ONE, "point": True}
    return {
        "height": HEIGHT,
        "data": {"values": _values(found.points)},
        "mark": mark,
        "encoding": {"x": {**x, "timeUnit": "utcyearmonthdate"} if days else x, "y": _amount(found.unit)},
    }


def _upright(found: Series) -> JsonObject:
    return {
        "height": HEIGHT,
        "data": {"values": _values(found.points)},
        "mark": {"type": "bar", "color": _ONE},
        "encoding": {
            "x": _PLACED,
            "y": _amount(found.unit),
        },
    }


def _lying(found: Series) -> JsonObject:
    y: JsonObject = {"field": "name", "type": "nominal", "title": None, "sort": {"field": "place"}}
    return {
        "height": {"step": ROW_HEIGHT},
        "data": {"values": _values(found.points)},
        "encoding": {"y": y, "x": _amount(found.unit)},
        "layer": [
            {"mark": {"type": "bar", "color": _ONE}},
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "color": _INK},
                "encoding": {"text": {"field": "words", "type": "nominal"}},
            },
        ],
    }


def _grouped(found: Series) -> JsonObject:
    series: JsonObject = {"field": "series", "type": "nominal", "title": None}
    return {
        "height": {"step": ROW_HEIGHT * 2 / 3},
        "data": {"values": _values(found.points)},
        "encoding": {
            "y": {"field": "name", "type": "nominal", "title": None, "sort": {"field": "place"}},
            "yOffset": series,
            "x": _amount(found.unit),
        },
        "layer": [
            {
                "mark": {"type": "bar"},
                "encoding": {"color": {**series, "scale": {"range": [_ONE, _TWO, _THREE]}}},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "color": _INK, "fontSize": 10},
                "encoding": {"text": {"field": "words", "type": "nominal"}},
            },
        ],
    }


def _waterfall(found: Series) -> JsonObject:
    before, change, after = found.points
    spans = ((before, 0.0, before.value), (change, after.value, before.value), (after, 0.0, after.value))
    values: list[JsonValue] = [
        {"name": point.name, "low": min(low, high), "high": max(low, high), "words": point.words, "place": place}
        for place, (point, low, high) in enumerate(spans)
    ]
    change_colour: JsonObject = {"test": "datum.place == 1", "value": _TWO}
    return {
        "height": HEIGHT,
        "data": {"values": values},
        "encoding": {"x": {**_PLACED, "axis": {"labelAngle": 0}}},
        "layer": [
            {
                "mark": {"type": "bar"},
                "encoding": {
                    "y": {"field": "low", "type": "quantitative", "title": found.unit},
                    "y2": {"field": "high"},
                    "color": {"condition": change_colour, "value": _ONE},
                },
            },
            {
                "mark": {"type": "text", "dy": -6, "color": _INK},
                "encoding": {
                    "y": {"field": "high", "type": "quantitative"},
                    "text": {"field": "words", "type": "nominal"},
                },
            },
        ],
    }


def _amount(unit: str) -> JsonObject:
    return {"field": "value", "type": "quantitative", "title": unit}


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= MAX_NAME_CHARACTERS else f"{line[: MAX_NAME_CHARACTERS - 1]}…"
