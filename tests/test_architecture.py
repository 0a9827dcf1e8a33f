"""What ARCHITECTURE.md names is there: a moved function turns this red."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
PLACES = sorted(set(re.findall(r"`((?:agent_service|ws_bridge|storage)/[\w/]+\.(?:py|js))(?:::([\w.]+))?`", TEXT)))


def test_the_life_of_a_message_names_places() -> None:
    assert len(PLACES) > 20


@pytest.mark.parametrize(("path", "name"), PLACES)
def test_a_place_exists(path: str, name: str) -> None:
    source = (ROOT / path).read_text("utf-8")
    for part in filter(None, name.split(".")):
        assert re.search(rf"^\s*(?:async def|def|class) {re.escape(part)}\b", source, re.MULTILINE), f"{path}::{name}"
