"""Makes the built-in sample dataset, the same one for the same seed: `python -m agent_service.tools.sample.generate`.

Thirty days of a made-up product with four features on four real models. README.md beside this file says what is in it.
"""

import csv
import gzip
import io
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

SEED = 20251001
FIRST_DAY = datetime(2025, 10, 1, tzinfo=UTC)
DAYS = 30
REQUESTS_PER_DAY = 330
WEEKEND = 0.35
SPIKE = (datetime(2025, 10, 21, 14, tzinfo=UTC), 420)
USERS = 60
DUPLICATE_SHARE = 0.08
PATH = Path(__file__).with_name("sample_usage.csv.gz")
COLUMNS = (
    *("timestamp", "model", "feature", "user_id", "input_tokens", "output_tokens", "cached_tokens"),
    *("latency_ms", "status", "prompt_hash"),
)
HOURS = (1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 17, 14, 17, 19, 18, 16, 12, 8, 6, 5, 4, 3, 2)


@dataclass(frozen=True, slots=True)
class Model:
    """How fast a model is (ms to the first token and per token) and how often it fails."""

    name: str
    first_ms: float
    token_ms: float
    failures: float


@dataclass(frozen=True, slots=True)
class Feature:
    """What a feature sends: medians of tokens, the share of cached input, and its models by weight."""

    name: str
    weight: int
    input_median: int
    output_median: int
    cached: float
    models: tuple[tuple[str, int], ...]


MODELS = {
    model.name: model
    for model in (
        Model("gpt-4o", 420, 14.0, 0.012),
        Model("gpt-4o-mini", 280, 8.0, 0.008),
        Model("claude-sonnet-4-5", 650, 17.0, 0.015),
        Model("gemini-2.5-flash", 240, 5.5, 0.010),
    )
}
FEATURES = (
    Feature("support_chat", 45, 1400, 220, 0.45, (("gpt-4o", 55), ("gpt-4o-mini", 45))),
    Feature("search_answers", 30, 2600, 140, 0.20, (("gpt-4o-mini", 60), ("gemini-2.5-flash", 40))),
    Feature("document_summary", 15, 6500, 480, 0.05, (("claude-sonnet-4-5", 70), ("gpt-4o", 30))),
    Feature("code_review", 10, 3800, 900, 0.30, (("claude-sonnet-4-5", 100),)),
)


def rows(seed: int = SEED) -> Iterator[tuple[str, ...]]:
    """Yield the rows in the order of time."""
    chance = random.Random(seed)  # noqa: S311 - made-up data, repeatable on purpose
    moments = sorted(_moments(chance))
    prompts = {feature.name: 0 for feature in FEATURES}
    for moment in moments:
        (feature,) = chance.choices(FEATURES, [feature.weight for feature in FEATURES])
        if _in_spike(moment) and chance.random() < 0.8:  # noqa: PLR2004 - one customer's batch job
            yield _row(chance, FEATURES[2], moment, "user_007", prompts)
        else:
            user = f"user_{min(USERS, 1 + int(chance.expovariate(1 / 14))):03d}"
            yield _row(chance, feature, moment, user, prompts)


def _moments(chance: random.Random) -> Iterator[datetime]:
    for day in range(DAYS):
        date = FIRST_DAY + timedelta(days=day)
        weekend = date.weekday() >= 5  # noqa: PLR2004 - Saturday
        growth = 1 + 0.012 * day
        count = int(REQUESTS_PER_DAY * growth * (WEEKEND if weekend else 1) * chance.uniform(0.93, 1.07))
        for hour in chance.choices(range(24), HOURS, k=count):
            yield date + timedelta(hours=hour, milliseconds=chance.randrange(3_600_000))
    start, count = SPIKE
    for _ in range(count):
        yield start + timedelta(milliseconds=chance.randrange(1_200_000))


def _in_spike(moment: datetime) -> bool:
    return SPIKE[0] <= moment < SPIKE[0] + timedelta(minutes=20)


def _row(
    chance: random.Random, feature: Feature, moment: datetime, user: str, prompts: dict[str, int]
) -> tuple[str, ...]:
    (name,) = chance.choices([name for name, _ in feature.models], [weight for _, weight in feature.models])
    model = MODELS[name]
    seen = prompts[feature.name]
    repeated = seen > 0 and chance.random() < DUPLICATE_SHARE
    prompt = chance.randrange(seen) if repeated else seen
    prompts[feature.name] = max(seen, prompt + 1)
    # A repeated prompt has the same length as the first time.
    size = random.Random(f"{feature.name} {prompt}")  # noqa: S311 - repeatable on purpose
    input_tokens = max(20, round(feature.input_median * math.exp(size.gauss(0, 0.55))))
    failed = chance.random() < model.failures * (4 if _in_spike(moment) else 1)
    output_tokens = 0 if failed else max(1, round(feature.output_median * math.exp(chance.gauss(0, 0.6))))
    cached = round(input_tokens * feature.cached * chance.random() / 64) * 64
    slow = 1.8 if _in_spike(moment) else 1.0
    latency = (
        (model.first_ms + model.token_ms * output_tokens + 0.02 * input_tokens) * slow * math.exp(chance.gauss(0, 0.3))
    )
    status = chance.choice(("timeout", "rate_limited", "error")) if failed else "ok"
    return (
        moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z",
        *(name, feature.name, user, str(input_tokens), str(output_tokens), str(min(cached, input_tokens))),
        *(str(30_000 if status == "timeout" else round(latency)), status, f"{feature.name[:2]}{prompt:05x}"),
    )


def text(seed: int = SEED) -> str:
    """Return the whole dataset as CSV."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows(seed))
    return out.getvalue()


def main() -> None:
    """Write the file. Without a time and a name in its header the same content gives the same bytes."""
    PATH.write_bytes(gzip.compress(text().encode(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
