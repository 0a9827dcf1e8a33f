"""What the supervisor saves, and what it does with what it cannot read."""

import pytest

from agent_service.engine.checkpoint import EarlierAnswer, LoopState, Plan, RunProgress, decode
from agent_service.engine.events import ArtifactCreated, Usage
from agent_service.engine.ports import Finding
from agent_service.engine.stages import Level

USAGE = Usage(input_tokens=5, model_requests=1, cost_usd=0.25)


def test_everything_survives() -> None:
    progress = RunProgress()
    progress.loops[0] = LoopState("", b"\x00loop")
    progress.finish_step(0, Finding("triage", {"category": "pricing"}))
    assert progress.loops == {}
    progress.missing["model"] = "model: matters"
    stages = (("data", "corpus_admin"), ("supervisor",))
    answer = EarlierAnswer(
        "Ten.",
        1_700_000_000_123,
        ("model: matters",),
        ("More?",),
        (ArtifactCreated("id", "a.svg", "image/svg+xml", 6),),
    )
    progress.decide(Plan("pricing", "why", stages, ("actions",), "partial", "", ("More?",), answer, "key"))
    progress.escalated = progress.told_triage = progress.degraded = True
    progress.told_steps |= {1, 2}
    progress.finish_step(2, Finding("corpus_admin", {"failed": "It broke."}))
    progress.finish_step(1, Finding("data", {"text": "10 €", "deep": {"list": [1, None, 2.5]}}))
    progress.loops[3] = LoopState("offline", b"\xff\x00")
    progress.loops[4] = LoopState("offline")
    progress.missing["latency"] = "latency: matters"
    found, usage = decode(progress.encode(USAGE))
    assert usage == USAGE
    assert vars(found) == vars(progress)
    assert found.plan is not None
    assert found.plan.agents == ("data", "corpus_admin", "supervisor")


def test_what_triage_missed_is_kept_only_where_nobody_measures_after_it() -> None:
    kept: dict[Level, dict[str, str]] = {"full": {}, "partial": {}, "guidance": {"model": "model: matters"}}
    for level, missing in kept.items():
        progress = RunProgress()
        progress.missing["model"] = "model: matters"
        progress.decide(Plan("optimization", "why", (("reporting",),), level=level))
        assert progress.missing == missing


def test_a_fresh_run_has_nothing() -> None:
    found, usage = decode(RunProgress().encode(Usage()))
    assert vars(found) == vars(RunProgress())
    assert usage == Usage()


@pytest.mark.parametrize("data", [None, b"", b"{}", b"\xff", b'{"version":1}'])
def test_what_cannot_be_read_is_a_fresh_start(data: bytes | None) -> None:
    found, usage = decode(data)
    assert vars(found) == vars(RunProgress())
    assert usage == Usage()


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_a_fresh_start(version: int) -> None:
    data = RunProgress().encode(USAGE).replace(b'"version":2', f'"version":{version}'.encode())
    assert decode(data)[1] == Usage()
