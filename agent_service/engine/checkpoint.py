"""How far a run is, as the supervisor saves it: JSON with a version. What cannot be read is not used."""

from typing import Final

import msgspec

from agent_service.engine.events import JsonObject, Usage
from agent_service.engine.ports import Finding

FORMAT_VERSION: Final = 1


class Plan(msgspec.Struct, frozen=True):
    """What was decided for a run. A `question` is asked instead of working through `agents`."""

    intent: str
    reason: str
    agents: tuple[str, ...]
    absent: tuple[str, ...] = ()
    question: str = ""
    suggestions: tuple[str, ...] = ()


class _SavedFinding(msgspec.Struct, frozen=True):
    agent_name: str
    output: msgspec.Raw


class _Saved(msgspec.Struct, frozen=True):
    version: int
    plan: Plan | None
    triage: msgspec.Raw
    told_triage: bool
    told_steps: int
    findings: list[_SavedFinding]
    missing: dict[str, str]
    loop_state: bytes | None
    usage: Usage


class RunProgress:
    """Where a run stands: triage's result, the plan, what its finished steps found, the current step's loop state.

    `missing` maps what the data lacks to a sentence about it. What the user was told of triage and of the steps' begin
    is kept, so that nobody tells it twice.
    """

    def __init__(self) -> None:
        self.triage: JsonObject | None = None
        self.told_triage = False
        self.told_steps = 0
        self.plan: Plan | None = None
        self.findings: list[Finding] = []
        self.missing: dict[str, str] = {}
        self.loop_state: bytes | None = None

    @property
    def steps_done(self) -> int:
        """How many of the plan's steps are finished."""
        return len(self.findings)

    def decide(self, plan: Plan) -> None:
        """Set the plan. What triage saw missing is not what the plan's own steps will miss."""
        self.plan = plan
        self.missing.clear()

    def finish_step(self, finding: Finding) -> None:
        """Note what the current step found: triage's while there is no plan. The next one begins without loop state."""
        if self.plan is None:
            self.triage = finding.output
        else:
            self.findings.append(finding)
        self.loop_state = None

    def encode(self, usage: Usage) -> bytes:
        """Return the bytes of a checkpoint; `usage` is what models consumed so far."""
        findings = [_SavedFinding(f.agent_name, _raw(f.output)) for f in self.findings]
        return msgspec.json.encode(
            _Saved(
                version=FORMAT_VERSION,
                plan=self.plan,
                triage=_raw(self.triage),
                told_triage=self.told_triage,
                told_steps=self.told_steps,
                findings=findings,
                missing=self.missing,
                loop_state=self.loop_state,
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
    progress.told_triage, progress.told_steps = saved.told_triage, saved.told_steps
    progress.plan = saved.plan
    progress.findings = [Finding(f.agent_name, msgspec.json.decode(f.output)) for f in saved.findings]
    progress.missing = saved.missing
    progress.loop_state = saved.loop_state
    return progress, saved.usage
