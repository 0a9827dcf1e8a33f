"""Which database is meant, and that its address stays hidden."""

import pytest

from agent_service.engine.events import Effect
from agent_service.engine.tool import ToolError
from agent_service.tools.database.analyzer import SCOPE, database_tools
from agent_service.tools.database.targets import choose, targets

KNOWN = targets({"shop": "postgresql+asyncpg://ann:pw@db/shop", "wiki": "sqlite:////var/wiki%20data.db"})


def test_addresses_become_those_of_the_drivers() -> None:
    assert KNOWN["shop"].address == "postgresql://ann:pw@db/shop"
    assert KNOWN["wiki"].address == "/var/wiki data.db"
    assert targets({"a": "sqlite+aiosqlite:///var/a.db"})["a"].address == "var/a.db"
    assert "pw" not in repr(KNOWN)


def test_another_kind_is_refused_without_its_address() -> None:
    with pytest.raises(ValueError, match="'a' is neither") as refused:
        targets({"a": "mysql://ann:pw@db/shop"})
    assert "pw" not in str(refused.value)


def test_the_one_that_is_meant_is_chosen() -> None:
    assert choose(KNOWN, " Shop ", "").name == "shop"
    assert choose(KNOWN, "", "Is our wiki slow?").name == "wiki"
    assert choose({"wiki": KNOWN["wiki"]}, "", "Analyze my database performance").name == "wiki"


@pytest.mark.parametrize(
    ("asked", "message", "words"),
    [
        ("other", "", r"no database target of that name\. There are: shop, wiki\."),
        ("postgresql://evil/db", "", "no database target of that name"),
        ("", "Analyze my database performance", r"several databases: shop, wiki\."),
        ("", "the shop or the wiki?", "several databases"),
    ],
)
def test_where_none_or_several_are_meant_it_says_which_there_are(asked: str, message: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        choose(KNOWN, asked, message)


def test_without_targets_it_says_how_to_name_one() -> None:
    with pytest.raises(ToolError, match="APEX_ANALYZER_TARGETS"):
        choose({}, "", "")


def test_the_tool_only_reads_and_needs_its_scope() -> None:
    (tool,) = database_tools({})
    assert tool.effect is Effect.READ_ONLY
    assert tool.scopes == {SCOPE} == {"databases:read"}
