"""Prices: by model, by date, by size, with cached tokens, recorded or computed; unknown models are named."""

from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, ModelPrice, StartDateConstraint, TieredPrices

from agent_service.engine.tool import ToolError
from agent_service.tools.pricing import KnownModel, look_up
from tests.support.datasets import NOW, DataBench, items, part, table, usd

HEADER = "timestamp,model,input_tokens,output_tokens"


def catalogue_price(model: str, day: datetime, input_tokens: int, output_tokens: int, cached: int = 0) -> Decimal:
    usage = genai_prices.Usage(input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cached)
    return genai_prices.calc_price(usage, model, genai_request_timestamp=day).total_price


def repriced_model() -> tuple[str, datetime]:
    """A model whose price changed one day, and that day."""
    for provider in get_snapshot().providers:
        if provider.id in {"openai", "anthropic", "google"}:
            for info in provider.models:
                for conditional in [] if isinstance(info.prices, ModelPrice) else info.prices:
                    if isinstance(conditional.constraint, StartDateConstraint) and isinstance(
                        look_up(info.id, NOW, NOW), KnownModel
                    ):
                        day = conditional.constraint.start_date
                        return info.id, datetime(day.year, day.month, day.day, tzinfo=UTC)
    pytest.fail("the catalogue has no model with a price change")


async def test_the_price_is_that_of_the_day() -> None:
    model, change = repriced_model()
    before = change.replace(year=change.year - 1)
    async with DataBench() as bench:
        lines = [f"{day:%Y-%m-%dT%H:%M:%SZ},{model},1000,500" for day in (before, change)]
        await bench.put("a.csv", table(HEADER, *lines))
        result = await bench.result("cost_breakdown", group_by=["day"])
    expected = {f"{day:%Y-%m-%d}": catalogue_price(model, day, 1000, 500) for day in (before, change)}
    assert {entry["name"]: entry["cost_usd"] for entry in items(result, "groups")} == {
        day: usd(price) for day, price in expected.items()
    }
    assert part(result, "pricing", "models", 0, "price_changes") == 1


async def test_the_price_is_that_of_the_size() -> None:
    info = get_snapshot().find_provider_model("claude-sonnet-4-5", None, None, None)[1]
    prices = info.get_prices(datetime(2025, 11, 1, tzinfo=UTC))
    assert isinstance(prices.input_mtok, TieredPrices)
    edge = prices.input_mtok.tiers[0].start
    day = datetime(2025, 11, 1, tzinfo=UTC)
    sizes = (edge - 1, edge, edge + 1)
    async with DataBench() as bench:
        lines = [f"{day:%Y-%m-%dT%H:%M:%SZ},claude-sonnet-4-5,{size},100,f{size}" for size in sizes]
        await bench.put("a.csv", table(HEADER + ",feature", *lines))
        result = await bench.result("cost_breakdown", group_by=["feature"])
    assert {entry["name"]: entry["cost_usd"] for entry in items(result, "groups")} == {
        f"f{size}": usd(catalogue_price("claude-sonnet-4-5", day, size, 100)) for size in sizes
    }


async def test_cached_tokens_have_their_own_price() -> None:
    day = datetime(2025, 11, 1, tzinfo=UTC)
    async with DataBench() as bench:
        await bench.put("a.csv", table(HEADER + ",cached_tokens", "2025-11-01T00:00:00Z,gpt-4o,1000000,1000,600000"))
        result = await bench.result("cost_breakdown")
    assert part(result, "total_cost_usd") == usd(catalogue_price("gpt-4o", day, 1_000_000, 1000, 600_000))
    assert part(result, "components") == {
        "input_usd": 1.0,
        "output_usd": 0.01,
        "cached_usd": 0.75,
        "requests_usd": 0.0,
    }


async def test_a_stray_row_does_not_change_how_cached_tokens_are_counted() -> None:
    good = ["2025-11-01T00:00:00Z,gpt-4o,1000,100,800"] * 50
    async with DataBench() as bench:
        await bench.put("a.csv", table(HEADER + ",cached_tokens", *good, "2025-11-01T00:00:00Z,gpt-4o,1000,100,1001"))
        result = await bench.result("cost_breakdown")
    # 50 times 200 tokens as input and 800 from the cache; the stray row has no input that is not from the cache.
    cached = (50 * 800 + 1001) * Decimal("1.25") / 1_000_000
    output = 51 * 100 * Decimal(10) / 1_000_000
    assert part(result, "total_cost_usd") == usd(50 * 200 * Decimal("2.5") / 1_000_000 + cached + output)
    assert part(result, "pricing", "cached_note") == (
        "cached tokens are counted within the input tokens; 1 requests have more of them than input"
    )


async def test_a_filter_does_not_change_how_cached_tokens_are_counted() -> None:
    lines = ["2025-11-01T00:00:00Z,gpt-4o,100,0,5000,chat"] * 9 + ["2025-11-01T00:00:00Z,gpt-4o,100,0,50,mail"]
    async with DataBench() as bench:
        await bench.put("a.csv", table(HEADER + ",cached_tokens,feature", *lines))
        whole = await bench.result("cost_breakdown", group_by=["feature"])
        mail = await bench.result("cost_breakdown", features=["mail"])
    (of_mail,) = [entry for entry in items(whole, "groups") if entry["name"] == "mail"]
    assert part(mail, "total_cost_usd") == of_mail["cost_usd"]


async def test_cached_tokens_beside_the_input_are_noticed() -> None:
    async with DataBench() as bench:
        await bench.put("a.csv", table(HEADER + ",cached_tokens", "2025-11-01T00:00:00Z,gpt-4o,1000,0,1000000"))
        result = await bench.result("cost_breakdown")
    assert part(result, "total_cost_usd") == 1.2525
    assert "beside" in str(part(result, "pricing", "cached_note"))


async def test_unknown_models_are_named_and_never_priced() -> None:
    async with DataBench() as bench:
        await bench.put(
            "a.csv",
            table(
                HEADER,
                "2025-11-01T00:00:00Z,gpt-4o,1000000,0",
                "2025-11-01T00:00:00Z,our-finetune,5,7",
                "2025-11-01T00:00:00Z,,11,13",
                "2025-11-01T00:00:00Z,gpt-4o,17,",
            ),
        )
        result = await bench.result("cost_breakdown")
        assumed = await bench.result("cost_breakdown", assume_model="gpt-4o-mini")
    assert part(result, "total_cost_usd") == 2.5
    assert part(result, "pricing", "requests_priced") == 1
    assert part(result, "pricing", "requests_unpriced") == 3
    gaps = {str(entry["model"]): entry for entry in items(result, "pricing", "unpriced")}
    assert gaps["our-finetune"]["why"] == "the price catalogue does not know this model"
    assert gaps["our-finetune"]["input_tokens"] == 5
    assert "no model is known" in str(gaps["(none)"]["why"])
    assert "token counts are missing" in str(gaps["gpt-4o"]["why"])
    assert part(assumed, "total_cost_usd") == usd(
        Decimal("2.5") + (11 * Decimal("0.15") + 13 * Decimal("0.6")) / 1_000_000
    )
    assert part(assumed, "pricing", "requests_unpriced") == 2


async def test_an_assumed_model_must_be_known() -> None:
    async with DataBench() as bench:
        with pytest.raises(ToolError, match="'my-model' cannot be assumed: the price catalogue does not know"):
            await bench.call("cost_breakdown", assume_model="my-model")


async def test_a_recorded_cost_wins_and_gaps_are_priced() -> None:
    async with DataBench() as bench:
        await bench.put(
            "a.csv", table(HEADER + ",cost_usd", "2025-11-01,gpt-4o,1000000,0,0.1", "2025-11-02,gpt-4o,1000000,0,")
        )
        result = await bench.result("cost_breakdown", group_by=["day"])
    assert part(result, "pricing", "source") == "mixed"
    assert part(result, "components") is None
    assert [entry["cost_usd"] for entry in items(result, "groups")] == [2.5, 0.1]
    assert [entry["share"] for entry in items(result, "groups")] == [0.961538, 0.038462]


async def test_recorded_costs_add_up_without_rounding_errors() -> None:
    async with DataBench() as bench:
        await bench.put("a.csv", table("feature,cost", *["chat,0.1", "chat,0.000001", "mail,1.2e-5"] * 100))
        result = await bench.result("cost_breakdown", group_by=["feature"])
    assert {entry["name"]: entry["cost_usd"] for entry in items(result, "groups")} == {"chat": 10.0001, "mail": 0.0012}
    assert part(result, "pricing", "source") == "column"


async def test_money_as_people_write_it() -> None:
    async with DataBench() as bench:
        await bench.put("a.csv", b"feature;cost\nchat;1,50\nmail;2,25\n")
        assert part(await bench.result("cost_breakdown"), "total_cost_usd") == 3.75
        await bench.put("b.csv", b'feature,cost\nchat,"$1,200.50"\nmail,$0.25\n')
        assert part(await bench.result("cost_breakdown"), "total_cost_usd") == 1200.75


async def test_two_dimensions_and_the_rest() -> None:
    lines = [f"2025-11-01,gpt-4o,1000,0,f{i % 5},u{i % 3}" for i in range(60)]
    async with DataBench() as bench:
        await bench.put("a.csv", table(HEADER + ",feature,user", *lines))
        result = await bench.result("cost_breakdown", group_by=["feature", "user"], top=4)
    shown = items(result, "groups")
    assert [entry["name"] for entry in shown] == ["f0 / u0", "f0 / u1", "f0 / u2", "f1 / u0"]
    assert shown[0]["keys"] == {"feature": "f0", "user": "u0"}
    assert part(result, "other", "groups") == 11
    assert part(result, "other", "requests") == 44


async def test_names_that_contain_the_separator_stay_apart() -> None:
    async with DataBench() as bench:
        await bench.put(
            "a.csv", table(HEADER + ",feature,user", "2025-11-01,gpt-4o,1,0,a / b,c", "2025-11-01,gpt-4o,1,0,a,b / c")
        )
        result = await bench.result("cost_breakdown", group_by=["feature", "user"])
    assert len(items(result, "groups")) == 2


async def test_without_times_todays_price_counts() -> None:
    async with DataBench() as bench:
        await bench.put("a.csv", table("model,input_tokens,output_tokens", "gpt-4o,1000000,0"))
        result = await bench.result("cost_breakdown", group_by=["day"])
    assert part(result, "total_cost_usd") == usd(catalogue_price("gpt-4o", NOW, 1_000_000, 0))
    assert part(result, "cost_per_day_usd") is None
    assert [entry["name"] for entry in items(result, "groups")] == ["all"]
    assert {entry["column"] for entry in items(result, "missing")} == {"timestamp"}


def test_a_provider_may_be_named_before_the_model() -> None:
    found = look_up("openai/gpt-4o", NOW, NOW)
    assert isinstance(found, KnownModel)
    assert (found.provider, found.matched) == ("openai", "gpt-4o")


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-pro", "deepseek-chat"])
def test_every_span_has_the_catalogues_price(name: str) -> None:
    first, last = datetime(2024, 1, 1, tzinfo=UTC), NOW
    found = look_up(name, first, last)
    assert isinstance(found, KnownModel)
    info = get_snapshot().find_provider_model(name, None, None, None)[1]
    conditionals = [ConditionalPrice(prices=info.prices)] if isinstance(info.prices, ModelPrice) else info.prices
    assert len({span.start for span in found.spans}) <= len(conditionals)
    for span in found.spans:
        moment = max(span.start, first).replace(hour=span.start_s // 3600, minute=span.start_s % 3600 // 60)
        size = span.above + 1
        expected = catalogue_price(name, moment, size, 1000)
        assert Decimal(span.input * size + span.output * 1000 + span.request) / 10**15 == expected
