"""What of an earlier call's result a chart can show. A result without it gives no points, and no chart is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from agent_service.engine.events import JsonObject
from agent_service.engine.tool import ToolRecord
from agent_service.tools.citations import child, number, objects, options_of, text
from agent_service.tools.reporting.figures import figure, milliseconds, money

Kind: TypeAlias = Literal[
    "cost_over_time",
    "cost_by_group",
    "latency_percentiles",
    "requests_over_time",
    "usage_by_hour",
    "savings_by_option",
    "savings_waterfall",
]

MAX_POINTS: Final = 150
"""Of one chart; a result with more is not drawn in part."""

PERCENTILES: Final = ("p50", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a chart: what it is about, how much, and how that reads. `series` is empty where there is only one."""

    name: str
    value: float
    words: str
    series: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """The points of a chart. `note` is what a reader must know to read them rightly, or empty."""

    title: str
    unit: str
    points: tuple[Point, ...]
    note: str = ""


def series(kind: Kind, record: ToolRecord, which: str) -> Series | None:
    """Return what this call holds for a chart of this kind; None where it holds nothing for it.

    `which` is the dimension of `cost_by_group` and `latency_percentiles`, or the option of `savings_waterfall`; empty:
    the only or first one.
    """
    found = _READERS[kind](record, which)
    return found if found is not None and 0 < len(found.points) <= MAX_POINTS else None


def _cost_over_time(record: ToolRecord, _: str) -> Series | None:
    groups, rest = _groups(record, "day")
    days = sorted(_costs(groups), key=lambda point: point.name)
    note = f"{len(days)} days with the most of it; the others are not shown." if rest is not None else ""
    return Series("Cost by day", "USD", tuple(days), note)


def _cost_by_group(record: ToolRecord, which: str) -> Series | None:
    dimension = which or _dimension(record)
    groups, rest = _groups(record, dimension)
    points = sorted(_costs(groups), key=lambda point: -point.value)
    other = number(rest, "cost_usd")
    if points and other:
        points.append(Point("all others", other, money(other)))
    return Series(f"Cost by {dimension.replace(', ', ' and ')}", "USD", tuple(points))


def _latency_percentiles(record: ToolRecord, which: str) -> Series | None:
    if record.tool_name == "latency_analysis":
        overall = child(record.result, "overall")
        groups = objects(record.result, "groups") or ([overall] if isinstance(overall, Mapping) else [])
        measured: list[tuple[str, JsonObject | None]] = [
            (text(group, "name") or "all requests", group) for group in groups
        ]
        dimension = _dimension(record)
    else:
        dimension = which or "model"
        measured = [(text(group, "name"), _object(group, "latency_ms")) for group in _groups(record, dimension)[0]]
    points = [
        Point(name, value, milliseconds(value), percentile)
        for name, group in measured
        for percentile in PERCENTILES
        if (value := number(group, percentile)) is not None
    ]
    by = f" by {dimension}" if dimension and len(measured) > 1 else ""
    return Series(f"Latency percentiles{by}", "ms", tuple(points))


def _requests_over_time(record: ToolRecord, _: str) -> Series | None:
    found = objects(record.result, "series", "points")
    points = tuple(
        Point(text(point, "start"), value, f"{value:,.0f}")
        for point in found
        if (value := number(point, "requests")) is not None and text(point, "start")
    )
    return Series("Requests over time", "requests", points)


def _usage_by_hour(record: ToolRecord, _: str) -> Series | None:
    points = tuple(
        Point(f"{number(hour, 'hour') or 0:02.0f}:00", value, f"{value:,.0f}")
        for hour in objects(record.result, "hourly")
        if (value := number(hour, "requests")) is not None
    )
    return Series("Requests by hour of day, UTC", "requests", points)


def _savings_by_option(record: ToolRecord, _: str) -> Series | None:
    points = tuple(
        Point(option.title, value, money(value))
        for option in options_of(record)
        if (value := number(option.data, "saving_usd")) is not None
    )
    return Series(
        "Computed saving of each option", "USD", points, "Each one alone: savings of several options do not add up."
    )


def _savings_waterfall(record: ToolRecord, which: str) -> Series | None:
    options = [option for option in options_of(record) if which in {"", option.id}]
    for option in options:
        before, after = number(option.data, "cost_before_usd"), number(option.data, "cost_after_usd")
        if before is not None and after is not None:
            saved = before - after
            points = (
                Point("Cost now", before, money(before)),
                Point("Saving" if saved >= 0 else "Increase", saved, money(-saved)),
                Point("Cost after", after, money(after)),
            )
            parts = objects(option.data, "parts")
            title = f"the combination of {len(parts)} options" if len(parts) > 1 else option.title
            return Series(f"What is left of the cost with {title}", "USD", points)
    return None


_READERS: Final[Mapping[Kind, Callable[[ToolRecord, str], Series | None]]] = MappingProxyType(
    {
        "cost_over_time": _cost_over_time,
        "cost_by_group": _cost_by_group,
        "latency_percentiles": _latency_percentiles,
        "requests_over_time": _requests_over_time,
        "usage_by_hour": _usage_by_hour,
        "savings_by_option": _savings_by_option,
        "savings_waterfall": _savings_waterfall,
    }
)

KINDS: Final = tuple(_READERS)


def _dimension(record: ToolRecord) -> str:
    """Return what the call's groups are by, several joined by commas."""
    found = child(record.result, "group_by")
    if isinstance(found, list | tuple):
        return ", ".join(str(name) for name in found)
    grouped = child(record.result, "groups")
    return next(iter(grouped), "") if isinstance(grouped, Mapping) else ""


def _groups(record: ToolRecord, dimension: str) -> tuple[Sequence[JsonObject], JsonObject | None]:
    """Return the groups by this dimension, and what the result sums up as other."""
    grouped, rest = child(record.result, "groups"), child(record.result, "other")
    if isinstance(grouped, Mapping):
        return objects(grouped, dimension), _object(rest, dimension)
    if dimension and _dimension(record) == dimension:
        return objects(record.result, "groups"), rest if isinstance(rest, Mapping) else None
    return [], None


def _object(value: object, key: str) -> JsonObject | None:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _costs(groups: Sequence[JsonObject]) -> list[Point]:
    return [
        Point(text(group, "name"), cost, figure("cost_usd", cost))
        for group in groups
        if (cost := number(group, "cost_usd")) is not None
    ]
