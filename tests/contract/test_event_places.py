"""An event of the contract has its place everywhere where forgetting it would go unnoticed."""

import re
from pathlib import Path

from generated.apex.agent.v1 import agent_pb2 as pb
from tests.support.grammar import EVENT_TYPES

ROOT = Path(__file__).parents[2]
CASES = {field.name for field in pb.AgentEvent.DESCRIPTOR.oneofs_by_name["event"].fields}


def test_the_page_has_a_handler_for_each() -> None:
    source = (ROOT / "ws_bridge" / "static" / "run_state.js").read_text("utf-8")
    handlers = source.partition("const HANDLERS = {")[2].partition("\n};")[0]
    assert set(re.findall(r"^  (\w+): ", handlers, re.MULTILINE)) == CASES


def test_the_readme_explains_each() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    table = text.partition("| event | means |")[2].partition("\n\n")[0]
    explained = set(re.findall(r"`(\w+)`", table)) & CASES
    assert explained == CASES - {"approval_requested", "approval_resolved"}, "no tool needs an approval yet"


def test_the_grammar_checker_lets_none_fall() -> None:
    assert EVENT_TYPES == CASES
