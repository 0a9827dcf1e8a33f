"""The figures of whole runs: each kind is measured, and its tools are seen at work."""

import pytest

from benchmarks.runs import KINDS, NOTHING, measure, table


@pytest.mark.slow
def test_every_kind_of_run_is_measured() -> None:
    found = measure(runs=2)
    assert [times.kind for times in found] == list(KINDS)
    assert all(len(times.seconds) == 2 and min(times.seconds) > 0 for times in found)
    with_tools = [times for times in found if times.tools_s[0] > 0]
    assert [times.kind.message for times in with_tools] == ["Analyze my AI costs"]
    shown = table(found)
    assert all(kind.label in shown for kind in KINDS)
    assert (found[0].kind, found[0].events) == (NOTHING, 10), "each agent had its turn"
    assert "1.0x" in shown
