"""The synthetic data agent's tools: profile_dataset, generate_workload, validate_synthetic."""

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from agent_service.engine.events import Effect, JsonObject
from agent_service.engine.tool import Tool, ToolContext, ToolError, ToolOutput, define_tool
from agent_service.tools.analysis import (
    DatasetArgs,
    FilteredArgs,
    Workbench,
    dataset_part,
    filter_part,
    mapping_part,
    missing_part,
    notes_part,
)
from agent_service.tools.measures import counted
from agent_service.tools.roles import Role
from agent_service.tools.sandbox import Sandbox
from agent_service.tools.synthetic.generation import Order, generate
from agent_service.tools.synthetic.learning import learn
from agent_service.tools.synthetic.likeness import Likeness, compare
from agent_service.tools.synthetic.presets import Distribution, Preset, preset_profile
from agent_service.tools.synthetic.profile import Profile

MIN_ROWS: Final = 100
MAX_ROWS: Final = 1_000_000
MAX_DAYS: Final = 365
MAX_SPIKE_FACTOR: Final = 100

FREE_ROWS: Final = 50_000
"""More rows than this are made only when a person has approved."""

TIMEOUT_MS: Final = 28_000
"""Of one call of generate_workload: a million rows take several seconds to make, and to keep."""

PIECE_BYTES: Final = 256 * 1024
"""Of the made file, read at once."""

SHOWN_SEGMENTS: Final = 12
MEDIA_TYPE: Final = "application/vnd.apache.parquet"

_WANTED: Final = (Role.TIMESTAMP, Role.MODEL, Role.INPUT_TOKENS, Role.OUTPUT_TOKENS, Role.LATENCY, Role.STATUS)


class ProfileDatasetArgs(FilteredArgs):
    """Arguments of profile_dataset."""


class GenerateWorkloadArgs(DatasetArgs):
    """Arguments of generate_workload."""

    preset: Preset | None = Field(
        default=None, description="A made-up workload to start from. Null: learn from the user's dataset."
    )
    rows: int | None = Field(
        default=None, ge=MIN_ROWS, le=MAX_ROWS, description="How many requests. Null: as many as the preset or dataset."
    )
    days: int | None = Field(
        default=None, ge=1, le=MAX_DAYS, description="Days that they spread over. Null: as the preset or dataset."
    )
    distribution: Distribution | None = Field(
        default=None, description="The shape of sizes and latencies of a preset. Null: the preset's own."
    )
    noise: float = Field(
        default=0.0, ge=0, le=1, description="Varies each value by up to this share, within its range."
    )
    seed: int = Field(default=1, ge=0, le=2**31 - 1, description="The same seed gives the same rows.")
    start_date: date | None = Field(default=None, description="The first day (UTC). Null: so that it ends yesterday.")
    spike_day: int = Field(default=0, ge=0, le=MAX_DAYS, description="A day of more traffic, from 1. 0: none.")
    spike_factor: float = Field(
        default=1.0, ge=0, le=MAX_SPIKE_FACTOR, description="How many times the usual traffic that day has."
    )
    name: str = Field(
        default="", max_length=60, pattern=r"^[\w -]*$", description="The dataset's name. Empty: made up."
    )


class ValidateSyntheticArgs(BaseModel):
    """Arguments of validate_synthetic."""

    model_config = ConfigDict(extra="forbid")

    synthetic_dataset: str = Field(min_length=1, max_length=300, description="Id or name of the generated dataset.")
    source_dataset: str = Field(
        default="", max_length=300, description="Id or name of the dataset that it should be like. Empty: see preset."
    )
    preset: Preset | None = Field(default=None, description="The preset that it should be like, in place of a dataset.")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the tools work with: `bench` reads datasets, `maker` is the sandbox whose children may write one file."""

    bench: Workbench
    maker: Sandbox


def synthetic_tools(bench: Workbench, maker: Sandbox) -> tuple[Tool[BaseModel], ...]:
    """Return the synthetic data agent's tools."""
    shop = Workshop(bench, maker)
    return (
        define_tool(
            "profile_dataset",
            "Learn what a dataset is like: shares and sizes by model and feature, times, users, failures. "
            "Keeps no prompt and no user's name.",
            ProfileDatasetArgs,
            partial(profile_dataset, shop),
        ),
        define_tool(
            "generate_workload",
            "Generate a synthetic usage log as a dataset (Parquet), from a preset or in the likeness of a dataset.",
            GenerateWorkloadArgs,
            partial(generate_workload, shop),
            effect=Effect.IDEMPOTENT,
            timeout_ms=TIMEOUT_MS,
            needs_approval=_approval,
        ),
        define_tool(
            "validate_synthetic",
            "Compare a generated dataset with its source: each share, size distribution and correlation.",
            ValidateSyntheticArgs,
            partial(validate_synthetic, shop),
        ),
    )


def _approval(args: GenerateWorkloadArgs) -> str:
    rows = args.rows or (preset_profile(args.preset).rows if args.preset else 0)
    return f"It makes {rows:,} rows; more than {FREE_ROWS:,} need a person's approval." if rows > FREE_ROWS else ""


async def profile_dataset(shop: Workshop, context: ToolContext, args: ProfileDatasetArgs) -> ToolOutput:
    """Learn a dataset's profile."""
    async with shop.bench.load(context, args) as (opened, facts):
        profile = await learn(facts, opened.session.name)
        result: JsonObject = {
            "dataset": dataset_part(opened.chosen, facts.rows),
            "filter": filter_part(args, facts),
            "mapping": mapping_part(facts),
            "notes": notes_part(facts),
            "profile": _profile_part(profile),
            "missing": missing_part(facts.missing(*_WANTED)),
        }
    parts = counted(len(profile.segments), "pair")
    return ToolOutput(
        f"{opened.session.name}: {parts} of model and feature over {counted(profile.days, 'day')}", result
    )


async def generate_workload(shop: Workshop, context: ToolContext, args: GenerateWorkloadArgs) -> ToolOutput:
    """Generate a workload."""
    source: JsonObject | None = None
    if args.preset is not None:
        profile = preset_profile(args.preset, args.distribution)
    else:
        profile, source = await _learned(shop, context, args)
    rows = args.rows or min(max(profile.rows, MIN_ROWS), FREE_ROWS)
    days = args.days or min(profile.days, MAX_DAYS)
    if args.spike_day > days:
        raise ToolError(f"Day {args.spike_day} is after the last of {days} days. Choose an earlier spike_day.")
    order = Order(
        profile=profile,
        rows=rows,
        days=days,
        seed=args.seed,
        start=_start(args, days, shop.bench.clock.now()),
        noise=args.noise,
        spike_day=args.spike_day if args.spike_factor != 1 else 0,
        spike_factor=args.spike_factor,
    )
    made_up = f"synthetic_{args.preset or 'workload'}_{rows}"
    name = f"{args.name.strip().replace(' ', '_') or made_up}.parquet"
    with tempfile.TemporaryDirectory(prefix="apex-synthetic-") as folder:
        target = Path(folder) / "workload.parquet"
        async with shop.maker.scratch(target, name) as session:
            async for made in generate(session, order, target):
                await context.progress(f"{made:,} of {rows:,} rows made", 0.9 * made / rows)
        described = f"{counted(rows, 'synthetic request')} like {profile.name}, seed {args.seed}"
        artifact_id = await context.artifacts.save(name, MEDIA_TYPE, _pieces(target), description=described)
        size = target.stat().st_size
    result: JsonObject = {
        "dataset": {"dataset_id": artifact_id, "name": name, "rows": rows, "synthetic": True, "size_bytes": size},
        "source": source or {"preset": args.preset, "distribution": args.distribution},
        "days": days,
        "start_date": order.start.date().isoformat(),
        "end_date": (order.start + timedelta(days=days - 1)).date().isoformat(),
        "seed": args.seed,
        "noise": args.noise,
        "spike": {"day": order.spike_day, "factor": order.spike_factor} if order.spike_day else None,
        "profile": _profile_part(profile),
        "artifact_id": artifact_id,
        "missing": [],
    }
    return ToolOutput(f"{name}: {counted(rows, 'row')} over {counted(days, 'day')}, like {profile.name}", result)


async def _learned(shop: Workshop, context: ToolContext, args: GenerateWorkloadArgs) -> tuple[Profile, JsonObject]:
    """Return the profile of the dataset that is meant, and which one it was."""
    if args.distribution is not None:
        raise ToolError("A learned profile has its own shape: leave distribution out, or name a preset.")
    wanted = ProfileDatasetArgs(dataset_id=args.dataset_id, columns=args.columns)
    async with shop.bench.load(context, wanted) as (opened, facts):
        profile = await learn(facts, opened.session.name)
        return profile, {"dataset": dataset_part(opened.chosen, facts.rows)}


def _start(args: GenerateWorkloadArgs, days: int, now: datetime) -> datetime:
    """Return midnight of the first day."""
    first = args.start_date or (now.astimezone(UTC).date() - timedelta(days=days))
    return datetime(first.year, first.month, first.day, tzinfo=UTC)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


async def validate_synthetic(shop: Workshop, context: ToolContext, args: ValidateSyntheticArgs) -> ToolOutput:
    """Compare a generated dataset with its source."""
    if (args.preset is None) == (not args.source_dataset.strip()):
        raise ToolError("Name what it should be like: either source_dataset or preset.")
    wanted, source = (
        await _profile_of(shop, context, args.source_dataset)
        if args.preset is None
        else (preset_profile(args.preset), f"the preset {args.preset}")
    )
    found, name = await _profile_of(shop, context, args.synthetic_dataset)
    checks = compare(wanted, found)
    passed = sum(check.passed for check in checks)
    result: JsonObject = {
        "synthetic": name,
        "source": source,
        "checks": [_check_part(check) for check in checks],
        "passed": passed,
        "failed": len(checks) - passed,
        "verdict": "alike" if passed == len(checks) else "different",
        "missing": [],
    }
    return ToolOutput(f"{name} against {source}: {passed} of {counted(len(checks), 'check')} passed", result)


async def _profile_of(shop: Workshop, context: ToolContext, dataset_id: str) -> tuple[Profile, str]:
    args = ProfileDatasetArgs(dataset_id=dataset_id)
    async with shop.bench.load(context, args) as (opened, facts):
        return await learn(facts, opened.session.name), opened.session.name


def _check_part(check: Likeness) -> JsonObject:
    return {
        "what": check.what,
        "measure": check.measure,
        "value": round(check.value, 4),
        "limit": check.limit,
        "passed": check.passed,
    }


def _profile_part(profile: Profile) -> JsonObject:
    """Return the profile, its largest segments first; the rest is counted."""
    shown = sorted(profile.segments, key=lambda segment: -segment.weight)[:SHOWN_SEGMENTS]
    total = sum(segment.weight for segment in profile.segments) or 1.0
    return {
        "name": profile.name,
        "rows": profile.rows,
        "days": profile.days,
        "segments": [{**msgspec.to_builtins(segment), "share": round(segment.weight / total, 4)} for segment in shown],
        "segments_not_shown": len(profile.segments) - len(shown),
        "correlation": dict(zip(("input_output", "input_latency", "output_latency"), profile.correlation, strict=True)),
        "hours": list(profile.hours),
        "weekdays": list(profile.weekdays),
        "users": len(profile.users),
    }
