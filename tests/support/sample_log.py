"""The built-in sample, read and priced by plain Python: what an answer about it must say."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from statistics import median

from tests.support.datasets import percentile, read_csv
from tests.support.optimization import Request, hits, log, price

SAMPLE = files("agent_service.tools.sample") / "sample_usage.csv.gz"


def read(content: bytes) -> list[Request]:
    """Read a log with the sample's columns, without its users."""
    return [
        Request(
            datetime.fromisoformat(row["timestamp"]),
            row["model"],
            row["feature"],
            int(row["input_tokens"]),
            int(row["output_tokens"]),
            int(row["cached_tokens"]),
            int(row["latency_ms"]),
            row["status"],
            row["prompt_hash"],
        )
        for row in read_csv(content)
    ]


ROWS = tuple(read(SAMPLE.read_bytes()))


def ending(day: datetime) -> tuple[bytes, list[Request]]:
    """Return the sample as a log whose last day is this one, as a file and as rows; times are whole seconds."""
    shift = timedelta(days=(day.date() - ROWS[-1].time.date()).days)
    rows = [replace(row, time=(row.time + shift).replace(microsecond=0)) for row in ROWS]
    return log(rows), rows


def usd(value: Decimal) -> str:
    """Write money as answers do: cents, or up to six decimals below a dollar."""
    if abs(value) >= 1:
        return f"${value:,.2f}"
    whole, digits = f"{value:.6f}".split(".")
    return f"${whole}.{digits.rstrip('0').ljust(2, '0')}"


def cost(rows: Iterable[Request], model: str = "") -> Decimal:
    """Return what the rows cost, with another model where one is named."""
    return sum((price(row, model=model) for row in rows), Decimal())


def grouped(rows: Iterable[Request], key: Callable[[Request], str]) -> dict[str, list[Request]]:
    """Return the rows by what the key says of them."""
    found: dict[str, list[Request]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def totals(rows: Sequence[Request]) -> str:
    """Return the cells of a table for requests, input and output tokens, as `1 | 2 | 3`."""
    tokens = (sum(row.input_tokens for row in rows), sum(row.output_tokens for row in rows))
    return " | ".join(f"{value:,}" for value in (len(rows), *tokens))


def share(part: Decimal | int, whole: Decimal | int) -> str:
    """Write a share as answers do."""
    return f"{float(part) / float(whole) * 100:.1f} %"


@dataclass(frozen=True, slots=True)
class Served:
    """A request as a policy serves it. `model` answers it; "" where a cache does."""

    request: Request
    model: str
    input_tokens: int

    @property
    def cost(self) -> Decimal:
        """What it costs."""
        return price(self.request, model=self.model, input_tokens=self.input_tokens) if self.model else Decimal()


def served(rows: Sequence[Request], policy: Mapping[str, list[dict[str, object]]]) -> list[Served]:
    """Return the rows as the rules of a router policy file serve them. Rules see requests as they came."""
    found = []
    cached = [False] * len(rows)
    for rule in policy["cache"]:
        ttl_s = rule["ttl_s"]
        assert isinstance(ttl_s, int)
        cached = hits(rows, ttl_s)
    for row, hit in zip(rows, cached, strict=True):
        targets = [rule["target"] for rule in policy["rules"] if _matches(row, rule)]
        target = targets[0] if targets else {"model": row.model}
        limits = [rule["max_input_tokens"] for rule in policy["trim"] if _matches(row, rule)]
        assert isinstance(target, dict)
        limit = limits[0] if limits else row.input_tokens
        assert isinstance(limit, int)
        found.append(Served(row, "" if hit else str(target["model"]), min(row.input_tokens, limit)))
    return found


def _matches(row: Request, rule: Mapping[str, object]) -> bool:
    match = rule["match"]
    assert isinstance(match, dict)
    if (match["models"] and row.model not in match["models"]) or (
        match["features"] and row.feature not in match["features"]
    ):
        return False
    sizes = {"input": row.input_tokens, "output": row.output_tokens}
    low = all(
        match[f"min_{kind}_tokens"] is None or size >= match[f"min_{kind}_tokens"] for kind, size in sizes.items()
    )
    return low and all(
        match[f"max_{kind}_tokens"] is None or size <= match[f"max_{kind}_tokens"] for kind, size in sizes.items()
    )


def usual_latency_ms(rows: Sequence[Served]) -> float:
    """Return the median latency when moved requests are scaled by both models' median time per output token."""
    pace = {
        model: median(row.latency_ms / row.output_tokens for row in own if row.output_tokens)
        for model, own in grouped((one.request for one in rows), lambda row: row.model).items()
    }
    return percentile([one.request.latency_ms * pace[one.model] / pace[one.request.model] for one in rows], 0.5)
