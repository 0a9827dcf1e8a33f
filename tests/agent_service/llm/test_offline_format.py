"""Tables in answers: what stands in people's data stays text."""

import pytest

from agent_service.llm.offline.format import table


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("[pay](https://evil.example)", r"\[pay](https://evil.example)"),
        (r"\[pay](https://evil.example)", r"\\\[pay](https://evil.example)"),
        ("![x](file:///etc/passwd)", r"!\[x](file:///etc/passwd)"),
        ("<script>", "&lt;script>"),
        ("two\nlines", "two lines"),
    ],
    ids=["pipe", "escaped pipe", "link", "escaped link", "picture", "tag", "lines"],
)
def test_a_name_stays_the_text_of_one_cell(name: str, cell: str) -> None:
    assert table(["Group"], [[name]])[-1] == f"| {cell} |"
