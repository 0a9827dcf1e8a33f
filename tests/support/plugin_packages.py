"""Packages with entry points, installed into a folder as pip leaves them, without a network or a build."""

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

EXAMPLE: Final = Path(__file__).parents[1] / "data" / "example_plugin"

EntryPoints = Mapping[str, Mapping[str, str]]


def install(source: Path, target: Path) -> None:
    """Install the package of this folder: its modules, and the names that its pyproject.toml gives."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    for module in source.glob("*.py"):
        shutil.copy(module, target)
    _write_metadata(project["name"], project["entry-points"], target)


def make(target: Path, name: str, code: str, entry_points: EntryPoints) -> None:
    """Install a package of one module, both called `name`."""
    (target / f"{name}.py").write_text(code)
    _write_metadata(name, entry_points, target)


def _write_metadata(name: str, entry_points: EntryPoints, target: Path) -> None:
    info = target / f"{name.replace('-', '_')}-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    lines = (
        f"[{group}]\n" + "".join(f"{point} = {value}\n" for point, value in points.items())
        for group, points in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(lines))
