"""What people ask, through the real service and bridge with the offline model: every number against plain Python."""

import io
import json
import re
import sqlite3
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import duckdb
import httpx
import pytest
from pypdf import PdfReader

from tests.support.bridge_server import Frame
from tests.support.datasets import TRACE, percentile, read_csv
from tests.support.deployment import Deployment
from tests.support.grammar import check_frames
from tests.support.optimization import Request, hits
from tests.support.sample_log import ROWS, cost, ending, grouped, served, share, totals, usd, usual_latency_ms

SAMPLE: Final = "the built-in sample (sample_usage.csv.gz)"
COST: Final = cost(ROWS)
OPTIMIZING: Final = ["data", "optimizations", "actions", "reporting"]


# ---- The product ----


@pytest.fixture(scope="module")
def apex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One deployment for all, which may look at the database `shop`. Each test is a user of its own."""
    shop = tmp_path_factory.mktemp("shop") / "shop.db"
    with closing(sqlite3.connect(shop)) as connection:
        connection.executescript(
            "CREATE TABLE customers (id INTEGER PRIMARY KEY);"
            "CREATE TABLE orders (customer INTEGER REFERENCES customers (id), note TEXT);"
        )
    settings = {"APEX_ANALYZER_TARGETS": f"shop=sqlite:///{shop}"}
    with Deployment(tmp_path_factory.mktemp("apex"), settings=settings) as deployment:
        yield deployment


@dataclass(frozen=True, slots=True)
class Told:
    """The events of a run, which obey the grammar and end well."""

    apex: Deployment
    user: str
    events: Sequence[Frame]

    @property
    def content(self) -> str:
        """The answer."""
        return str(self.events[-2]["payload"]["content"])

    @property
    def first_line(self) -> str:
        """What it says first."""
        return self.content.splitlines()[0]

    @property
    def thread_id(self) -> str:
        """The conversation that it is a part of."""
        return str(self.events[0]["thread_id"])

    @property
    def now(self) -> datetime:
        """When the run began."""
        return datetime.fromisoformat(self.events[0]["timestamp"])

    def payloads(self, kind: str) -> list[Frame]:
        """Return the payloads of the events of this kind, in order."""
        return [event["payload"] for event in self.events if event["type"] == kind]

    @property
    def agents(self) -> list[str]:
        """The agents that were planned, in order."""
        (planned,) = [body["planned_steps"] for body in self.payloads("agent_progress") if body["stage"] == "planned"]
        return [step["agent_name"] for step in planned]

    @property
    def tools(self) -> list[str]:
        """The tools that ran after triage, in order. Each ended well."""
        ended = {body["tool_call_id"]: body["status"] for body in self.payloads("tool_completed")}
        assert set(ended.values()) <= {"success"}, self.payloads("tool_completed")
        called = [event for event in self.events if event["type"] == "tool_executing"]
        return [event["payload"]["tool_name"] for event in called if event["agent_name"] != "triage"]

    def file(self, suffix: str) -> bytes:
        """Download the one file that was made with this suffix."""
        (artifact_id,) = [b["artifact_id"] for b in self.payloads("artifact_created") if b["name"].endswith(suffix)]
        headers = {"Authorization": f"Bearer {self.apex.token(self.user)}"}
        response = httpx.get(f"{self.apex.url}/api/v1/files/{artifact_id}/content", headers=headers)
        response.raise_for_status()
        return response.content


async def ask(
    apex: Deployment, user: str, message: str, *, thread_id: str = "", files: Sequence[str] = (), scope: str = ""
) -> Told:
    """Send a message over a socket and read its run to the end."""
    payload: Frame = {"content": message, "references": [{"file_id": file_id} for file_id in files]}
    if thread_id:
        payload["thread_id"] = thread_id
    async with apex.socket(token=apex.token(user, scope=scope or None)) as client:
        await client.expect("connection_established")
        await client.send("user_message", **payload)
        frames = await client.receive_until("agent_completed", "agent_error")
    events = [frame for frame in frames if "seq" in frame]
    check_frames(events)
    assert events[-1]["payload"].get("status") == "success", events[-1]
    return Told(apex, user, events)


# ---- What it costs ----


async def test_analyze_my_ai_costs(apex: Deployment) -> None:
    told = await ask(apex, "costs", "Analyze my AI costs")
    assert told.agents == ["data"]
    assert told.first_line.startswith(f"**In {SAMPLE}, {len(ROWS):,} requests cost {usd(COST)}: ")
    for model, rows in grouped(ROWS, lambda row: row.model).items():
        own = cost(rows)
        assert f"| {model} | {totals(rows)} | {usd(own)} | {share(own, COST)} |" in told.content
    for feature, rows in grouped(ROWS, lambda row: row.feature).items():
        shared = totals(rows).replace(" | ", f" | {share(len(rows), len(ROWS))} | ", 1)
        assert f"| {feature} | {shared} | {usd(cost(rows))} |" in told.content
    failed = sum(row.status != "ok" for row in ROWS)
    assert f"| Failed requests | {failed} ({share(failed, len(ROWS))}) |" in told.content
    latency = [row.latency_ms for row in ROWS]
    p50, p95 = percentile(latency, 0.5), percentile(latency, 0.95)
    assert f"| Latency, p50 / p95 | {p50:,.0f} ms / {p95 / 1000:,.1f} s |" in told.content


async def test_what_does_a_feature_cost(apex: Deployment) -> None:
    told = await ask(apex, "feature", "what does feature support_chat cost us?")
    rows = [row for row in ROWS if row.feature == "support_chat"]
    assert told.first_line.startswith(f"**In {SAMPLE}, {len(rows):,} requests of support_chat cost {usd(cost(rows))}: ")
    assert f"| support_chat | {totals(rows)} | {usd(cost(rows))} | 100.0 % |" in told.content


async def test_compare_latency_of_two_models(apex: Deployment) -> None:
    told = await ask(apex, "latency", "compare latency of gpt-4o and gpt-4o-mini in my logs")
    for model in ("gpt-4o", "gpt-4o-mini"):
        measured = [row.latency_ms for row in ROWS if row.model == model]
        values = [statistics.fmean(measured), *(percentile(measured, rank) for rank in (0.5, 0.95, 0.99, 1))]
        shown = [f"{value / 1000:,.1f} s" if value >= 10_000 else f"{value:,.0f} ms" for value in values]
        assert f"| {model} | {len(measured):,} | {' | '.join(shown)} |" in told.content
    assert told.first_line.startswith(f"**In {SAMPLE}, gpt-4o-mini is the fastest: p95 ")
    assert "claude" not in told.content


async def test_what_would_another_model_cost(apex: Deployment) -> None:
    told = await ask(apex, "what-if", "what would GPT-4o-mini cost for this traffic?")
    other = cost(ROWS, "gpt-4o-mini")
    assert told.first_line == (
        f"**The same {len(ROWS):,} requests of {SAMPLE} would cost {usd(other)} with gpt-4o-mini, "
        f"against {usd(COST)} as it was ({share(other - COST, COST)}).**"
    )


async def test_what_would_a_model_cost_for_a_real_trace_without_models(apex: Deployment) -> None:
    apex.upload("azure", "azure.csv.gz", TRACE.read_bytes())
    told = await ask(apex, "azure", "what would GPT-4o-mini cost for this traffic?")
    rows = [
        Request(datetime.fromisoformat(row["TIMESTAMP"][:-1]).replace(tzinfo=UTC), "gpt-4o-mini", "", *tokens(row))
        for row in read_csv(TRACE.read_bytes())
    ]
    assert f"{len(rows):,} requests of azure.csv.gz would cost {usd(cost(rows))} with gpt-4o-mini" in told.first_line


def tokens(row: dict[str, str]) -> tuple[int, int]:
    return int(row["ContextTokens"]), int(row["GeneratedTokens"])


# ---- What to do about it ----


def check_plan(told: Told) -> None:
    """Each step of the plan comes after those that it depends on, and says how it is checked and taken back."""
    plan = json.loads(told.file(".json") if len(json_files(told)) == 1 else told.file(f"{plan_name(told)}.json"))
    seen: set[str] = set()
    for step in plan["steps"]:
        assert seen.issuperset(step["depends_on"])
        assert step["validation"]
        assert step["rollback"]
        assert f"| {step['id']} | {step['what']} | {step['owner_role']} | {step['effort']} |" in told.content
        seen.add(step["id"])
    assert f"The plan has {len(seen)} steps" in told.content


def json_files(told: Told) -> list[str]:
    return [body["name"] for body in told.payloads("artifact_created") if body["name"].endswith(".json")]


def plan_name(told: Told) -> str:
    (name,) = [name for name in json_files(told) if name.startswith("action-plan-")]
    return name.removesuffix(".json")


async def test_cut_spend_and_keep_quality(apex: Deployment) -> None:
    told = await ask(apex, "cut", "cut spend 30 %, keep quality")
    assert told.agents == OPTIMIZING
    policy = json.loads(told.file("router-policy.json"))
    assert policy["rules"]
    after = sum((one.cost for one in served(ROWS, policy)), Decimal())
    saving = COST - after
    assert f"would save {usd(saving)}, {share(saving, COST)} of the measured cost" in told.first_line
    assert "that meets every goal" in told.first_line
    assert after <= COST * Decimal("0.7")
    assert f"| cost -30 % | {usd(COST * Decimal('0.7'))} | {usd(after)} | met |" in told.content
    assert "quality unchanged" in told.content
    check_plan(told)


async def test_several_goals_at_once(apex: Deployment) -> None:
    told = await ask(apex, "goals", "-20 % cost, 2x faster, +30 % usage: what do I do?")
    assert told.agents == OPTIMIZING
    then = served(ROWS, json.loads(told.file("router-policy.json")))
    after = sum((one.cost for one in then), Decimal())
    saving = COST - after
    assert f"would save {usd(saving)}, {share(saving, COST)} of the measured cost" in told.first_line
    spent = f"{usd(COST * Decimal('0.8'))} | {usd(after * Decimal('1.3'))}"
    assert f"| cost -20 % at +30 % traffic | {spent} | met |" in told.content
    limit = percentile([row.latency_ms for row in ROWS], 0.5) / 2
    usual = usual_latency_ms(then)
    assert usual > limit
    assert f"| p50 latency -50 % | {limit:,.0f} ms | {usual:,.0f} ms | not met |" in told.content
    assert "not every goal can be met" in told.first_line
    check_plan(told)


async def test_audit_caching(apex: Deployment) -> None:
    told = await ask(apex, "caching", "audit caching")
    repeated = [row for row, hit in zip(ROWS, hits(ROWS, 86_400), strict=True) if hit]
    saving = cost(repeated)
    assert f"would save {usd(saving)}, {share(saving, COST)} of the measured cost" in told.first_line
    assert f"({len(repeated)} requests of the log are affected)" in told.content
    (rule,) = json.loads(told.file("router-policy.json"))["cache"]
    assert rule["ttl_s"] == 86_400
    assert "simulate_caching" in told.tools
    assert "simulate_routing" not in told.tools


# ---- Knowledge bases ----

RUNBOOK: Final = b"""# Runbook

## Retries

Retry a failed payment three times, 20 seconds apart.

## Deployments

Deploy on Tuesdays only.
"""


async def test_a_knowledge_base_of_runbooks_and_what_it_says(apex: Deployment) -> None:
    file_id = apex.upload("corpus", "runbook.md", RUNBOOK)
    made = await ask(apex, "corpus", "create a knowledge base for our runbooks", files=[file_id])
    assert made.agents == ["corpus_admin"]
    assert made.tools == ["create_corpus", "add_documents"]
    assert "which now has 1 document" in made.first_line
    told = await ask(apex, "corpus", "what do our docs say about retries?")
    assert told.tools[-1] == "search_corpus"
    assert "three times, 20 seconds apart" in told.content
    assert "Tuesdays" not in told.content
    other = await ask(apex, "stranger", "what do our docs say about retries?")
    assert "three times" not in other.content


# ---- Synthetic data ----


async def test_requests_that_look_like_black_friday(apex: Deployment, tmp_path: Path) -> None:
    told = await ask(apex, "synthetic", "generate 10,000 requests that look like Black Friday")
    assert told.agents == ["synthetic_data"]
    assert "10,000 synthetic requests over 30 days" in told.first_line
    (made,) = told.payloads("artifact_created")
    path = tmp_path / "made.parquet"
    path.write_bytes(told.file(".parquet"))
    with duckdb.connect() as database:
        rows = database.read_parquet(str(path)).project("timestamp, input_tokens, output_tokens").fetchall()
    assert len(rows) == 10_000
    days = Counter(time.date() for time, _, _ in rows)
    first = min(days)
    assert max(days) - first == timedelta(days=29)
    assert max(days, key=lambda day: days[day]) == first + timedelta(days=23)
    assert days[first + timedelta(days=23)] > 3 * statistics.median(days.values())
    assert "| Day of more traffic | day 24, 5 times the usual |" in told.content
    again = await ask(apex, "synthetic", f"Analyze {made['name']}", thread_id=told.thread_id)
    sums = f"{sum(row[1] for row in rows):,} context (input) tokens and {sum(row[2] for row in rows):,} generated"
    assert f"In {made['name']}, 10,000 requests cost" in again.first_line
    assert sums in again.first_line


# ---- Reports ----


async def test_a_report_for_management(apex: Deployment) -> None:
    told = await ask(apex, "report", "report for management, with charts, PDF")
    assert told.agents == OPTIMIZING
    after = sum((one.cost for one in served(ROWS, json.loads(told.file("router-policy.json")))), Decimal())
    saving = f"{usd(COST - after)}, {share(COST - after, COST)}"
    assert f"would save {saving} of the measured cost" in told.first_line
    assert told.content.count("### Files") == 1
    assert "Put this in a report" not in told.content, "here it is"
    report = told.file("report.md").decode()
    pdf = " ".join(page.extract_text() for page in PdfReader(io.BytesIO(told.file("report.pdf"))).pages)
    page = told.file("report.html").decode()
    for text in (report.replace("\\", ""), pdf, page):
        assert usd(COST) in text
        assert usd(COST - after) in text
        assert f"{len(ROWS):,}" in text
    for model, rows in grouped(ROWS, lambda row: row.model).items():
        assert re.search(rf"\| {model} \| .*{re.escape(usd(cost(rows)))}", report.replace("\\", "")), model
    charts = [body["name"] for body in told.payloads("artifact_created") if body["name"].endswith(".svg")]
    assert {"cost-by-group-model.svg", "cost-over-time.svg", "savings-waterfall.svg"} <= set(charts)
    for name in charts:
        assert ET.fromstring(told.file(name)).tag.endswith("svg")  # noqa: S314 - of our own making
        assert f"`{name}`" in told.content


# ---- Operations ----


async def test_analyze_my_database_performance(apex: Deployment) -> None:
    told = await ask(apex, "dba", "Analyze my database performance", scope="databases:read")
    assert told.tools == ["database_analyzer"]
    assert told.first_line.startswith("**1 finding in the database shop (SQLite ")
    assert "| low | missing index | orders.customer |" in told.content


async def test_anomalies(apex: Deployment) -> None:
    told = await ask(apex, "anomalies", "Are there anomalies in my usage?")
    assert "anomaly_scan" in told.tools
    hours = [ROWS[0].time.replace(minute=0, second=0, microsecond=0)]
    while hours[-1] + timedelta(hours=1) <= ROWS[-1].time:
        hours.append(hours[-1] + timedelta(hours=1))
    counts = Counter(row.time.replace(minute=0, second=0, microsecond=0) for row in ROWS)
    requests = [counts[hour] for hour in hours]
    low, high = percentile(requests, 0.25), percentile(requests, 0.75)
    usual = f"{max(0, low - 1.5 * (high - low)):,.0f} to {high + 1.5 * (high - low):,.0f}"
    peak = max(hours, key=lambda hour: counts[hour])
    deviations = (counts[peak] - statistics.fmean(requests)) / statistics.stdev(requests)
    found = f"{counts[peak]:,} | {usual} | {deviations:+.1f}"
    assert f"| {peak:%Y-%m-%d %H:%M} UTC | requests | IQR, z-score | {found} |" in told.content
    spent = cost(row for row in ROWS if row.time.replace(minute=0, second=0, microsecond=0) == peak)
    assert f"in {len(hours)} hours of {SAMPLE}; the most unusual: cost at {peak:%Y-%m-%d %H:%M} UTC" in told.first_line
    assert usd(spent) in told.first_line


# ---- A conversation ----


async def test_a_conversation_goes_on(apex: Deployment) -> None:
    """A log that ends today, so that last week is in it."""
    content, rows = ending(datetime.now(UTC))
    apex.upload("chain", "usage.csv", content)
    first = await ask(apex, "chain", "Analyze my AI costs")
    assert f"In usage.csv, {len(rows):,} requests cost {usd(cost(rows))}" in first.first_line
    by_feature = await ask(apex, "chain", "and per feature?", thread_id=first.thread_id)
    check_features(by_feature, rows)
    last_week = await ask(apex, "chain", "do that for last week", thread_id=first.thread_id)
    monday = datetime.combine(last_week.now.date(), datetime.min.time(), UTC) - timedelta(days=last_week.now.weekday())
    week = [row for row in rows if monday - timedelta(days=7) <= row.time < monday]
    check_features(last_week, week)
    report = await ask(apex, "chain", "put it in a report", thread_id=first.thread_id)
    text = report.file("report.md").decode().replace("\\", "")
    assert f"{len(week):,}" in text
    assert usd(cost(week)) in text
    for feature, own in grouped(week, lambda row: row.feature).items():
        assert re.search(rf"\| {feature} \| .*{re.escape(usd(cost(own)))}", text), feature


def check_features(told: Told, rows: Sequence[Request]) -> None:
    """The answer says what each feature costs, the most expensive one first."""
    costs = {feature: cost(own) for feature, own in grouped(rows, lambda row: row.feature).items()}
    most = max(costs, key=lambda feature: costs[feature])
    whole = sum(costs.values(), Decimal())
    assert f"In usage.csv, {most} costs most: {usd(costs[most])}, {share(costs[most], whole)} of {usd(whole)}" in (
        told.first_line
    )
    for feature, own in grouped(rows, lambda row: row.feature).items():
        assert f"| {feature} | {totals(own)} | {usd(costs[feature])} | {share(costs[feature], whole)} |" in told.content
