"""What the supervisor saves, and what it does with what it cannot read."""

import pytest

from agent_service.engine.checkpoint import Plan, RunProgress, decode
from agent_service.engine.events import Usage
from agent_service.engine.ports import Finding

USAGE = Usage(input_tokens=5, model_requests=1, cost_usd=0.25)


def test_everything_survives() -> None:
    progress = RunProgress()
    progress.loop_state = b"\x00loop"
    progress.finish_step(Finding("triage", {"category": "pricing"}))
    progress.missing["model"] = "model: matters"
    progress.decide(Plan("pricing", "why", ("data", "supervisor"), ("actions",), suggestions=("More?",)))
    assert progress.missing == {}
    progress.finish_step(Finding("data", {"text": "10 €", "deep": {"list": [1, None, 2.5]}}))
    progress.loop_state = b"\xff\x00"
    progress.missing["latency"] = "latency: matters"
    found, usage = decode(progress.encode(USAGE))
    assert usage == USAGE
    assert vars(found) == vars(progress)
    assert found.steps_done == 1


def test_a_fresh_run_has_nothing() -> None:
    found, usage = decode(RunProgress().encode(Usage()))
    assert vars(found) == vars(RunProgress())
    assert usage == Usage()


@pytest.mark.parametrize("data", [None, b"", b"{}", b"\xff", b'{"version":2}'])
def test_what_cannot_be_read_is_a_fresh_start(data: bytes | None) -> None:
    found, usage = decode(data)
    assert vars(found) == vars(RunProgress())
    assert usage == Usage()


def test_another_version_is_a_fresh_start() -> None:
    data = RunProgress().encode(USAGE).replace(b'"version":1', b'"version":2')
    assert decode(data)[1] == Usage()
