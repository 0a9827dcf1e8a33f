"""What people ask and get, over the real tools and the offline model; the trace against plain Python."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from agent_service.engine.events import ToolCompleted, ToolExecuting, ToolStatus
from agent_service.specialists import OWN_AGENTS
from tests.support.conversations import AGENTS, Bench
from tests.support.datasets import TRACE, read_csv, table

ROWS = read_csv(TRACE.read_bytes())
TIMES = [datetime.strptime(row["TIMESTAMP"][:-1], "%Y-%m-%d %H:%M:%S.%f") for row in ROWS]  # noqa: DTZ007 - UTC
INPUT = sum(int(row["ContextTokens"]) for row in ROWS)
OUTPUT = sum(int(row["GeneratedTokens"]) for row in ROWS)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Bench() as bench:
        yield bench


def peak(length: timedelta) -> tuple[datetime, int]:
    """Return the first of the busiest buckets of this length, and its requests."""
    counts = Counter(time - (time - datetime.min) % length for time in TIMES)  # noqa: DTZ901 - all naive, all UTC
    start = min(counts, key=lambda bucket: (-counts[bucket], bucket))
    return start, counts[start]


async def test_a_trace_without_models_is_stated_exactly(bench: Bench) -> None:
    await bench.put("trace.csv.gz", TRACE.read_bytes())
    answer = (await bench.ask("Analyze my AI costs")).final.content
    assert answer.startswith(
        f"**In trace.csv.gz, {len(ROWS):,} requests: {INPUT:,} context (input) tokens and {OUTPUT:,} generated"
    )
    assert f"| Tokens in all | {INPUT + OUTPUT:,} |" in answer
    assert f"| First request | {min(TIMES)} UTC |" in answer
    assert f"| Last request | {max(TIMES)} UTC |" in answer
    minutes, seconds = divmod((max(TIMES) - min(TIMES)).total_seconds(), 60)
    assert f"| Time span | {minutes:.0f} min {seconds:.1f} s |" in answer
    for title, length in (("minute", timedelta(minutes=1)), ("hour", timedelta(hours=1))):
        start, requests = peak(length)
        assert f"| Busiest {title} | {start:%Y-%m-%d %H:%M} UTC: {requests:,} requests" in answer
    assert "What they cost is not known" in answer
    assert "$" not in answer
    missing = answer.partition("### What is missing")[2]
    assert "**model**" in missing
    assert "**latency**" in missing
    assert "assume gpt-4o" in missing


async def test_told_which_model_to_assume_it_prices_the_trace(bench: Bench) -> None:
    await bench.put("trace.csv.gz", TRACE.read_bytes())
    first = await bench.ask("Analyze my AI costs")
    answer = (await bench.ask("assume gpt-4o", thread_id=first.run.thread_id)).final.content
    # Of November 2023: the catalogue knows one price of gpt-4o.
    cost = (Decimal(INPUT) * Decimal("2.5") + Decimal(OUTPUT) * 10) / 1_000_000
    assert answer.startswith(
        f"**In trace.csv.gz, {len(ROWS):,} requests cost ${cost:,.2f}, priced as if all were gpt-4o:"
    )
    assert "| gpt-4o (assumed) | 19,366 | $2.50 | $10.00 |" in answer


async def test_latency_of_a_trace_without_latency_is_not_made_up(bench: Bench) -> None:
    await bench.put("trace.csv.gz", TRACE.read_bytes())
    told = await bench.ask("What is our p95 latency?")
    assert told.final.content.startswith("**Latency cannot be measured: trace.csv.gz has no latency column.**")
    assert any(sentence.startswith("latency:") for sentence in told.final.missing_data)


LOG = table(
    "timestamp,model,feature,input_tokens,output_tokens,latency_s,status",
    *(
        f"2026-01-0{day}T10:00:0{number}Z,{model},{feature},1000,100,{number + 1},{status}"
        for day in (5, 6)
        for number, (model, feature, status) in enumerate(
            [("gpt-4o", "chat", "ok"), ("gpt-4o-mini", "search", "ok"), ("gpt-4o", "chat", "error")]
        )
    ),
)


async def test_a_breakdown_and_its_follow_ups(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    first = await bench.ask("Which model costs us most?")
    thread_id = first.run.thread_id
    assert first.final.content.startswith("**In log.csv, gpt-4o costs most: $0.014, ")
    second = (await bench.ask("and by feature?", thread_id=thread_id)).final.content
    assert second.startswith("**In log.csv, chat costs most: $0.014, ")
    third = (await bench.ask("only on 2026-01-05", thread_id=thread_id)).final.content
    assert third.startswith("**In log.csv, chat costs most: $0.007, ")


async def test_an_answer_about_a_part_says_of_what(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    told = await bench.ask("What does the feature chat cost us?")
    assert told.final.content.startswith("**In log.csv, 4 requests of chat cost $0.014: ")


async def test_what_another_model_would_cost_is_computed_over_the_same_requests(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    told = await bench.ask("What would gpt-4o-mini cost for this traffic?")
    # 6 requests of 1000 and 100 tokens at $0.15 and $0.60 a million.
    assert told.final.content.startswith("**The same 6 requests of log.csv would cost $0.00126 with gpt-4o-mini")
    assert told.final.missing_data == ()


async def test_a_column_can_be_corrected_in_the_chat(bench: Bench) -> None:
    await bench.put("log.csv", table("timestamp,model,tin,tout", "2026-01-05T10:00:00Z,gpt-4o,1000,100"))
    told = await bench.ask("Analyze my costs: use column tin as input tokens and use column tout as output tokens")
    assert told.final.content.startswith(
        "**In log.csv, 1 request costs $0.0035: 1,000 context (input) tokens and 100 generated"
    )


async def test_goals_are_judged_all_at_once_over_the_same_requests() -> None:
    # Those who go on with the options write about them in words of their own.
    agents = [agent for agent in OWN_AGENTS if agent.name not in {"actions", "reporting"}]
    async with Bench(agents=agents) as bench:
        await bench.put("log.csv", LOG)
        told = await bench.ask("-20 % cost, 2x faster, +30 % usage: what do I do?")
    answer = told.final.content
    # 4 requests of gpt-4o and 2 of gpt-4o-mini, 1000 and 100 tokens each, and 30 % more of them.
    before = (4 * (Decimal("2.5") + 1) + 2 * (Decimal("0.15") + Decimal("0.06"))) / 1_000
    limit, grown = (f"${format(before * Decimal(factor), '.6f').rstrip('0')}" for factor in ("0.8", "1.3"))
    assert f"| cost -20 % at +30 % traffic | {limit} | {grown} |" in answer
    # Six requests are too few to tell how fast a model is.
    assert "p50 latency -50 % (cannot be judged)" in answer.partition("\n")[0]
    assert told.result("combine_options")["feasible"] is False


async def test_where_nobody_computes_options_goals_become_numbers_and_nothing_is_promised() -> None:
    async with Bench(agents=AGENTS) as bench:
        await bench.put("log.csv", LOG)
        answer = (await bench.ask("-20 % cost, 2x faster, +30 % usage: what do I do?")).final.content
    assert "| usage +30 % | 6 requests | 8 requests |" in answer
    assert "Not available here yet" in answer
    assert "sav" not in answer.partition("### Not available")[0].replace("any saving", "").replace("a saving", "")


async def test_failures_are_counted(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    answer = (await bench.ask("Show the error rate and what fails")).final.content
    assert "**In log.csv, 2 requests failed: 33.3 % of all.**" in answer


async def test_a_query_of_ones_own(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    answer = (await bench.ask("select model, count(*) as n from data group by model order by n desc")).final.content
    assert "| gpt-4o | 4 |" in answer
    assert "| gpt-4o-mini | 2 |" in answer


async def test_a_query_that_is_no_select_is_refused_in_words(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    told = await bench.ask("select * from data; drop table data")
    assert [call.status for call in told.bodies(ToolCompleted) if call.tool_name == "query_dataset"] == [
        ToolStatus.ERROR
    ]
    assert "I could not analyse the data" in told.final.content
    assert "one SELECT over the table data" in told.final.content


async def test_without_data_the_sample_answers_and_says_so(bench: Bench) -> None:
    told = await bench.ask("Analyze my AI costs")
    assert told.final.content.startswith("**In the built-in sample (sample_usage.csv.gz), ")
    assert "this is the built-in sample" in told.final.content
    assert "$" in told.final.content


async def test_a_filter_that_matches_nothing_is_said_with_what_there_is(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    told = await bench.ask("What did we spend in 1999?")
    assert told.final.content.startswith("**No row of log.csv matches the filter")
    assert "Without that filter: **In log.csv, 6 requests cost" in told.final.content


async def test_columns_are_shown_so_that_they_can_be_corrected(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    answer = (await bench.ask("What columns does my dataset have?")).final.content
    assert "| input_tokens | BIGINT | input_tokens |" in answer


async def test_a_file_that_is_no_dataset_gets_an_answer_that_helps(bench: Bench) -> None:
    await bench.put("log.csv", b"\x00\x01\x02 this is no table")
    told = await bench.ask("Analyze my AI costs")
    assert told.final.content
    assert "log.csv" in told.final.content


async def test_names_in_the_data_do_not_break_the_answers_table(bench: Bench) -> None:
    evil = "a|b<script>"
    await bench.put("log.csv", table("timestamp,model,feature,input_tokens", f"2026-01-05T10:00:00Z,gpt-4o,{evil},10"))
    answer = (await bench.ask("cost by feature")).final.content
    assert "<script>" not in answer
    assert "a\\|b&lt;script>" in answer


async def test_arguments_that_the_model_sends_always_fit_the_tools(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    messages = (
        "costs by hour and weekday in January 2026",
        "compare latency of gpt-4o and gpt-4o-mini by hour, since 2026-01-05",
        "would it be cheaper on gemini 2.0 flash or claude haiku 4.5 or gpt-4.1 nano or o3-mini?",
        "cost per user and status for the chat feature last month",
        "when is traffic highest by day?",
        "report for the board about log.csv",
    )
    for message in messages:
        told = await bench.ask(message)
        errors = [call.error for call in told.bodies(ToolCompleted) if "arguments do not fit" in call.error]
        assert not errors, (message, errors)
        assert told.bodies(ToolExecuting), message


BROKEN = b'{"model":"gpt-4o"}\n{oops}\n{"model":"gpt-4o"}\n'
WHY = "broken.jsonl is not valid JSON: line 2 cannot be read"


async def test_a_broken_upload_does_not_stand_before_what_was_there(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    await bench.put("broken.jsonl", BROKEN)
    for question in ("Analyze my AI costs", "When is our traffic highest?", "Which datasets do I have?"):
        content = (await bench.ask(question)).final.content
        first, _, note, *_ = content.splitlines()
        assert "log.csv" in first, question
        assert note.startswith(f"*broken.jsonl is newer, but cannot be read: {WHY}."), question
        assert "it is your newest dataset that can be read" in content, question


async def test_when_nothing_can_be_read_the_sample_answers_and_says_why(bench: Bench) -> None:
    await bench.put("broken.jsonl", BROKEN)
    content = (await bench.ask("Analyze my AI costs")).final.content
    assert content.startswith("**In the built-in sample (sample_usage.csv.gz), ")
    assert WHY in content
    assert "You have no data of your own" not in content


async def test_a_failure_is_told_once_with_a_way_out(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    await bench.put("broken.jsonl", BROKEN)
    told = await bench.ask("Analyze my AI costs in broken.jsonl")
    content = told.final.content
    assert content.count(WHY) == 1
    assert "usage_summary" not in content
    assert "cost_breakdown" not in content
    assert "Upload another file" in content
    assert told.final.suggestions == ("Which datasets do I have?", "Analyze log.csv")
    for suggestion in told.final.suggestions:
        again = await bench.ask(suggestion, thread_id=told.run.thread_id)
        assert "log.csv" in again.final.content.splitlines()[0], suggestion


async def test_a_forecast_is_declined_first_where_nobody_makes_one() -> None:
    async with Bench(agents=AGENTS) as bench:
        await bench.put("good.csv", LOG)
        content = (await bench.ask("use good.csv: what would happen with 2x traffic?")).final.content
        other = (await bench.ask("What would gpt-4o-mini cost for this traffic?")).final.content
    assert content.splitlines()[0].startswith("**Forecasts and what-ifs, other than the price of the same traffic")
    assert "are not available here yet" in content.splitlines()[0]
    assert "good.csv" in content.splitlines()[0]
    assert "| Requests | 6 |" in content
    assert "Forecasts" not in other


async def test_a_breakdown_by_a_column_that_is_not_there_is_answered_in_a_sentence(bench: Bench) -> None:
    await bench.put("trace.csv.gz", TRACE.read_bytes())
    first = await bench.ask("Analyze my AI costs")
    content = (await bench.ask("And by feature?", thread_id=first.run.thread_id)).final.content
    assert content.startswith("**There is no feature column in trace.csv.gz.**")
    assert "Add a column such as feature" in content
    assert "|" not in content, "no tables"
    assert "And by feature?" not in content
    both = (await bench.ask("costs by feature and day")).final.content
    assert both.startswith("**There is no feature column in trace.csv.gz.** What can be told without:")
    assert "### Usage by day" in both, "what is there is shown"


async def test_comparing_files_is_declined_first_and_one_is_analysed(bench: Bench) -> None:
    await bench.put("a.csv", LOG)
    await bench.put("b.csv", LOG.replace(b"chat", b"talk"))
    content = (await bench.ask("Compare a.csv and b.csv")).final.content
    assert content.startswith(
        "**One dataset is analysed at a time: this is a.csv.** For another one send “Analyze b.csv”"
    )
    assert "**In a.csv, 6 requests cost" in content
    attached = await bench.ask("Compare the two files")
    assert attached.final.content.startswith("**One dataset is analysed at a time: this is b.csv.**")
    after = await bench.ask("and by feature?", thread_id=attached.run.thread_id)
    assert after.final.content.startswith("**In b.csv, talk costs most")


async def test_little_traffic_is_told_in_words_that_fit(bench: Bench) -> None:
    lines = ("2026-01-05T10:00:00Z,nobody-knows,1000,100", "2026-01-09T10:00:00Z,nobody-knows,1000,100")
    await bench.put("few.csv", table("timestamp,model,input_tokens,output_tokens", *lines))
    content = (await bench.ask("Analyze my AI costs")).final.content
    assert "there is no price for nobody-knows; ask, for example, “What would gpt-4o cost" in content.splitlines()[0]
    assert "| Requests per day, mean | 0.500 |" in content
    assert "2026-01-05 10:00 UTC: 1 request, 1,100 tokens" in content
    when = (await bench.ask("When is our traffic highest?")).final.content
    await bench.put("mixed.csv", table("model,input_tokens,output_tokens", "gpt-4o,1000,100", "nobody-knows,10,1"))
    mixed = (await bench.ask("Analyze my AI costs")).final.content
    assert "(1 of them could not be priced and is not in it)" in mixed.splitlines()[0]
    assert when.startswith("**In few.csv, most requests come between 10:00 and 11:00 UTC.**")
    assert "times the mean" not in when
    assert "1 requests" not in content + when


async def test_a_share_says_of_what(bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    content = (await bench.ask("Analyze my AI costs")).final.content
    content += (await bench.ask("When is our traffic highest?")).final.content
    assert "| Cost | Share of cost |" in content
    assert "| Requests | Share of requests |" in content
    assert "| Share |" not in content


PARTS = {
    # 4 requests of chat with gpt-4o, 2 of search with gpt-4o-mini, 1000 and 100 tokens each.
    "What did search cost?": "**In log.csv, 2 requests of search cost $0.00042: ",
    "What did chat cost in the first week?": "**In log.csv, 4 requests of chat cost $0.014: ",
    "how much did gpt-4o cost on January 5?": "**In log.csv, 2 requests with gpt-4o cost $0.007: ",
    "What did we spend in the last day of the log?": "**In log.csv, 3 requests cost $0.00721: ",
    "What did we spend on weekends?": "**I did not understand the time “on weekends”: this is all of log.csv.**",
    "Compare latency of gpt-4o and claude": "**There is no model “claude” in log.csv: it has gpt-4o, gpt-4o-mini.**",
}


@pytest.mark.parametrize("question", PARTS)
async def test_a_part_that_is_named_is_measured_or_said_not_to_be_there(question: str, bench: Bench) -> None:
    await bench.put("log.csv", LOG)
    content = (await bench.ask(question)).final.content
    assert content.startswith(PARTS[question])
    # Where only the data told which part it is, the whole is told beside it.
    told_by_data = "weekends" not in question and "gpt-4o cost" not in question
    assert ("All together: In log.csv, " in content) == told_by_data
