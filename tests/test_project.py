"""Promises of the repository that no linter holds."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agent_service", "benchmarks", "configuration", "storage", "ws_bridge")
VAGUE_NAMES = {"common", "helpers", "manager", "util", "utils"}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def pins(lock: str) -> dict[str, str]:
    """Return name → the whole entry with version, marker and hashes."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line.strip() for line in text.splitlines() if line.strip()]
    # A package may be pinned twice, for different Python versions: the marker belongs to the key.
    return {entry.split(" --hash", 1)[0]: entry for entry in entries}


@pytest.mark.parametrize("lock", ["base.txt", "dev.txt"])
def test_lock_has_only_pins_with_hashes(lock: str) -> None:
    for entry in pins(lock).values():
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", entry), entry


def test_runtime_lock_is_part_of_the_development_lock() -> None:
    """Pin for pin, hashes included; where a package is needed (its marker) may differ, for more needs it there."""

    def of(lock: str) -> set[tuple[str, str]]:
        return {
            (key.split(" ;")[0].strip(), entry.partition(" --hash")[2].strip()) for key, entry in pins(lock).items()
        }

    assert of("base.txt") <= of("dev.txt")


def test_package_init_holds_a_docstring_only() -> None:
    wordy = [
        str(path.relative_to(ROOT))
        for path in modules()
        if path.name == "__init__.py" and [type(node) for node in ast.parse(path.read_text("utf-8")).body] != [ast.Expr]
    ]
    assert wordy == []


def test_every_package_folder_has_an_init() -> None:
    folders = {path.parent for path in modules() if "migrations" not in path.parts}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(path.relative_to(ROOT)) for path in modules() if VAGUE_NAMES & set(path.stem.split("_"))] == []


def test_no_type_is_ignored() -> None:
    escape = re.compile(r"#\s*type:\s*ignore")
    files = [*modules(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "protos").rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in files if escape.search(path.read_text("utf-8"))] == []
