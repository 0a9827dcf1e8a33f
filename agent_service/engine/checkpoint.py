"""How far a run is, as the supervisor saves it: JSON with a version. What cannot be read is not used."""

from typing import Final

import msgspec

from agent_service.engine.events import ArtifactCreated, JsonObject, Usage
from agent_service.engine.ports import Finding
from agent_service.engine.stages import Level, Stages

FORMAT_VERSION: Final = 2


class EarlierAnswer(msgspec.Struct, frozen=True):
    """An answer that was computed before, for the same request over the same data. `computed_ms`: Unix milliseconds."""

    content: str
    computed_ms: int
    missing_data: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    artifacts: tuple[ArtifactCreated, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """What was decided for a run. A `question` or an earlier `answer` is given instead of working through `stages`.

    Under `cache_key` the answer may be kept; empty: it is not.
    """

    intent: str
    reason: str
    stages: Stages
    absent: tuple[str, ...] = ()
    level: Level = "full"
    question: str = ""
    suggestions: tuple[str, ...] = ()
    answer: EarlierAnswer | None = None
    cache_key: str = ""

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents of all stages, in order."""
        return tuple(name for stage in self.stages for name in stage)


class LoopState(msgspec.Struct, frozen=True):
    """Where an unfinished step stands: the model that works on it (empty: the run's own), and the loop's own state."""

    model: str = ""
    state: bytes | None = None


class _SavedFinding(msgspec.Struct, frozen=True):
    agent_name: str
    output: msgspec.Raw


class _Saved(msgspec.Struct, frozen=True):
    version: int
    plan: Plan | None
    triage: msgspec.Raw
    escalated: bool
    told_triage: bool
    told_steps: list[int]
    findings: dict[int, _SavedFinding]
    missing: dict[str, str]
    loops: dict[int, LoopState]
    degraded: bool
    usage: Usage


class RunProgress:
    """Where a run stands: triage's result, the plan, what its steps found, the loop states of those at work.

    `findings` and `loops` are keyed by the step's number, triage's is 0. `missing` maps what the data lacks to a
    sentence about it. `escalated`: the larger model has been asked. `degraded`: something did not work as it should,
    so the answer may be less than it could be. What the user was told of triage and of the steps' begin is kept, so
    that nobody tells it twice.
    """

    def __init__(self) -> None:
        self.triage: JsonObject | None = None
        self.escalated = False
        self.told_triage = False
        self.told_steps: set[int] = set()
        self.plan: Plan | None = None
        self.findings: dict[int, Finding] = {}
        self.missing: dict[str, str] = {}
        self.loops: dict[int, LoopState] = {}
        self.degraded = False

    def decide(self, plan: Plan) -> None:
        """Set the plan. What triage saw missing is not what the plan's own steps will miss, where there are any."""
        self.plan = plan
        if plan.level != "guidance":
            self.missing.clear()

    def finish_step(self, number: int, finding: Finding) -> None:
        """Note what a step found: triage's while there is no plan."""
        if self.plan is None:
            self.triage = finding.output
        else:
            self.findings[number] = finding
        self.loops.pop(number, None)

    def fail_step(self, number: int, agent_name: str, words: str) -> None:
        """Note why a step failed. Triage that fails after it understood the request once has understood it."""
        if number or self.triage is None:
            self.findings[number] = Finding(agent_name, {"failed": words})
        self.loops.pop(number, None)

    def encode(self, usage: Usage) -> bytes:
        """Return the bytes of a checkpoint; `usage` is what models consumed so far."""
        return msgspec.json.encode(
            _Saved(
                version=FORMAT_VERSION,
                plan=self.plan,
                triage=_raw(self.triage),
                escalated=self.escalated,
                told_triage=self.told_triage,
                told_steps=sorted(self.told_steps),
                findings={number: _SavedFinding(f.agent_name, _raw(f.output)) for number, f in self.findings.items()},
                missing=self.missing,
                loops=self.loops,
                degraded=self.degraded,
                usage=usage,
            )
        )


def _raw(value: JsonObject | None) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def decode(data: bytes | None) -> tuple[RunProgress, Usage]:
    """Return the progress and the usage that were saved; a fresh start where nothing readable was."""
    progress = RunProgress()
    if data is None:
        return progress, Usage()
    try:
        saved = msgspec.json.decode(data, type=_Saved)
    except msgspec.MsgspecError:
        return progress, Usage()
    if saved.version != FORMAT_VERSION:
        return progress, Usage()
    progress.triage = msgspec.json.decode(saved.triage)
    progress.escalated = saved.escalated
    progress.told_triage, progress.told_steps = saved.told_triage, set(saved.told_steps)
    progress.plan = saved.plan
    progress.findings = {
        number: Finding(found.agent_name, msgspec.json.decode(found.output)) for number, found in saved.findings.items()
    }
    progress.missing = saved.missing
    progress.loops = saved.loops
    progress.degraded = saved.degraded
    return progress, saved.usage
