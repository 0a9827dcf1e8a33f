"""Repeated prompts and what a cache could have saved, against plain Python."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio

from agent_service.tools.analysis import Workbench
from agent_service.tools.duplicates import MAX_CLIP_CHARACTERS
from agent_service.tools.optimization.tools import optimization_tools
from tests.support.datasets import DataBench, StoppedClock, context, items, number, part, table, usd

pytestmark = pytest.mark.asyncio(loop_scope="module")

START = datetime(2026, 3, 2, tzinfo=UTC)
LONG = "Summarise this contract for a reader in a hurry and keep every number that is in it, please: TAIL-OF-THE-PROMPT"
PROMPTS = ["Hello there", "hello   there!", "What is RAG?", "what is rag", LONG, "only once"]


@dataclass(frozen=True)
class Request:
    when: datetime
    model: str
    prompt: str
    input_tokens: int
    output_tokens: int
    failed: bool

    @property
    def cost(self) -> Decimal:
        price = {"gpt-4o": (Decimal("2.5"), Decimal(10)), "gpt-4o-mini": (Decimal("0.15"), Decimal("0.6"))}[self.model]
        return (self.input_tokens * price[0] + self.output_tokens * price[1]) / 1_000_000


LOG = [
    Request(
        START + timedelta(minutes=17 * index),
        "gpt-4o" if index % 3 else "gpt-4o-mini",
        PROMPTS[5] if index == 30 else PROMPTS[index * 7 % 5],
        100 + index,
        20 + index % 9,
        failed=index % 11 == 5,
    )
    for index in range(60)
]


def content(*, prompt: bool = True, hashed: bool = False) -> bytes:
    lines = []
    for one in LOG:
        shown = hashlib.sha256(one.prompt.encode()).hexdigest() if hashed else f'"{one.prompt}"'
        status = "error" if one.failed else "ok"
        lines.append(f"{one.when.isoformat()},{one.model},{shown},{one.input_tokens},{one.output_tokens},{status}")
    name = "prompt" if prompt else "remark"
    return table(f"timestamp,model,{name},input_tokens,output_tokens,status", *lines)


def normal(prompt: str) -> str:
    return re.sub(r"[ .!?…]+$", "", " ".join(prompt.split()).lower())


def saved(window: timedelta, *, plain: bool) -> list[Request]:
    """The requests that a cache would have answered."""
    last: dict[tuple[str, str], datetime] = {}
    found = []
    for one in LOG:
        key = (normal(one.prompt) if plain else one.prompt, one.model)
        if key in last and one.when - last[key] <= window:
            found.append(one)
        if not one.failed:
            last[key] = one.when
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[DataBench]:
    async with DataBench() as made:
        await made.put("hashed.csv", content(hashed=True))
        await made.put("none.csv", content(prompt=False))
        await made.put("log.csv", content())
        yield made


@pytest.mark.parametrize("minutes", [1, 34, 85, 170, 1_440, 60 * 24 * 365])
async def test_repeats_and_savings_are_those_of_plain_python(bench: DataBench, minutes: int) -> None:
    found = await bench.result("duplicate_prompts", dataset_id="log.csv", window_minutes=minutes)
    tokens = sum(one.input_tokens + one.output_tokens for one in LOG)
    cost = sum((one.cost for one in LOG), Decimal(0))
    for name in ("exact", "normalised"):
        repeats = saved(timedelta(minutes=minutes), plain=name == "normalised")
        groups: dict[str, int] = defaultdict(int)
        for one in LOG:
            groups[normal(one.prompt) if name == "normalised" else one.prompt] += 1
        saved_cost = sum((one.cost for one in repeats), Decimal(0))
        saved_tokens = sum(one.input_tokens + one.output_tokens for one in repeats)
        assert part(found, name) == {
            "groups": sum(count > 1 for count in groups.values()),
            "repeats": len(repeats),
            "share_of_requests": round(len(repeats) / len(LOG), 6),
            "tokens": saved_tokens,
            "share_of_tokens": round(saved_tokens / tokens, 6),
            "cost_usd": usd(saved_cost),
            "share_of_cost": round(float(saved_cost / cost), 6),
        }
    assert sum(int(str(group["repeats"])) for group in items(found, "groups")) == part(found, "normalised", "repeats")


async def test_a_prompt_is_shown_in_a_short_piece_only(bench: DataBench) -> None:
    found = await bench.result("duplicate_prompts", dataset_id="log.csv")
    shown = [str(group["prompt"]) for group in items(found, "groups")]
    assert max(map(len, shown)) == MAX_CLIP_CHARACTERS
    assert "TAIL-OF-THE-PROMPT" not in json.dumps(found)
    assert LONG[: MAX_CLIP_CHARACTERS - 1] + "…" in shown
    greeting = next(group for group in items(found, "groups") if str(group["prompt"]).lower().startswith("hello"))
    assert greeting["wordings"] == 2


async def test_secrets_in_prompts_are_not_shown(bench: DataBench) -> None:
    lines = [f"2026-03-02T0{hour}:00:00Z,use password=hunter2x now,1,1" for hour in range(3)]
    await bench.put("secret.csv", table("timestamp,prompt,input_tokens,output_tokens", *lines))
    found = await bench.result("duplicate_prompts", dataset_id="secret.csv")
    assert part(found, "exact", "repeats") == 2
    assert part(found, "exact", "cost_usd") is None
    assert "hunter2x" not in json.dumps(found)
    assert "model" in [entry["column"] for entry in items(found, "missing")]


async def test_a_column_of_hashes_is_enough(bench: DataBench) -> None:
    hashed = await bench.result("duplicate_prompts", dataset_id="hashed.csv")
    plain = await bench.result("duplicate_prompts", dataset_id="log.csv")
    assert part(hashed, "exact") == part(plain, "exact")
    assert part(hashed, "normalised") is None


async def test_without_prompts_it_says_what_to_bring(bench: DataBench) -> None:
    output = await bench.call("duplicate_prompts", dataset_id="none.csv")
    (entry,) = items(output.result, "missing")
    assert entry["column"] == "prompt"
    assert "prompt_hash" in str(entry["how_to_supply"])
    assert part(output.result, "exact") is None
    told = await bench.result("duplicate_prompts", dataset_id="none.csv", columns={"prompt": "remark"})
    assert part(told, "exact", "groups") == 5


async def test_without_times_every_repeat_counts(bench: DataBench) -> None:
    await bench.put("timeless.csv", table("prompt,input_tokens,output_tokens", *["a b,1,1"] * 4, "c d,1,1"))
    found = await bench.result("duplicate_prompts", dataset_id="timeless.csv", window_minutes=1)
    assert part(found, "exact", "repeats") == 3
    assert part(found, "window_minutes") is None


async def test_groups_are_bounded_and_the_rest_is_counted(bench: DataBench) -> None:
    found = await bench.result("duplicate_prompts", dataset_id="log.csv", top=1)
    assert len(items(found, "groups")) == 1
    assert part(found, "groups_not_shown") == 2


async def test_the_simulation_of_a_cache_counts_the_same_repeats(bench: DataBench) -> None:
    made = optimization_tools(Workbench(bench.files, bench.sandbox, StoppedClock()))
    (simulate,) = (tool for tool in made if tool.name == "simulate_caching")
    args = simulate.args.model_validate({"dataset_id": "log.csv", "ttl_s": 85 * 60})
    lifetimes = items((await simulate.run(context(), args)).result, "exact_repeats", "lifetimes")
    (hits,) = (number(entry, "hits") for entry in lifetimes if entry["ttl_s"] == 85 * 60)
    found = await bench.result("duplicate_prompts", dataset_id="log.csv", window_minutes=85)
    assert number(found, "exact", "repeats") == hits > 0
