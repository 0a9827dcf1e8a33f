"""Figures as people read them, by what their names in results say they are."""

from datetime import datetime
from typing import Final

from agent_service.engine.events import JsonValue

CENTS_FROM_USD: Final = 1.0
"""From here two decimals say enough; smaller amounts get more."""

SECONDS_FROM_MS: Final = 10_000
"""From here a latency is told in seconds."""

_MILLISECONDS: Final = frozenset({"p50", "p90", "p95", "p99", "mean", "min", "max"})


def figure(key: str, value: JsonValue, *, parent: str = "") -> str:
    """Return a scalar for people. `key` is its name in the result, `parent` the name of the object around it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _moment(value)
    if not isinstance(value, int | float):
        return ""
    return _number(key, value, parent)


def _number(key: str, value: float, parent: str) -> str:
    if "usd" in key:
        return money(value)
    if key.endswith("percent"):
        return f"{value:,.1f} %"
    if key.startswith("share") or key.endswith(("_rate", "_share")) or key == "rate":
        return f"{value * 100:,.1f} %"
    if key.endswith("_ms") or (key in _MILLISECONDS and ("latency" in parent or parent in {"", "overall"})):
        return milliseconds(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}".rstrip("0").rstrip(".")


def money(value: float) -> str:
    """US dollars: `96.782055` → `$96.78`, `0.004998` → `$0.004998`."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    if size == 0 or size >= CENTS_FROM_USD:
        return f"{sign}${size:,.2f}"
    whole, _, digits = f"{size:.6f}".partition(".")
    return f"{sign}${whole}.{digits.rstrip('0').ljust(2, '0')}"


def milliseconds(value: float) -> str:
    """`812.4` → `812 ms`, `30000` → `30.0 s`."""
    return f"{value / 1000:,.1f} s" if value >= SECONDS_FROM_MS else f"{value:,.0f} ms"


def label(key: str) -> str:
    """`cost_per_request_usd` → `Cost per request, USD`."""
    words = key.replace("_", " ").strip()
    for suffix, unit in ((" usd", ", USD"), (" ms", ", ms"), (" percent", ", %"), (" s", ", s")):
        if words.endswith(suffix):
            words = words.removesuffix(suffix) + unit
            break
    return words[:1].upper() + words[1:]


def _moment(value: str) -> str:
    if len(value) < len("2026-01-01T00") or value[10:11] != "T":
        return value
    try:
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return value
