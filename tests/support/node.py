"""The page's modules under Node.js, without a browser. Skips with a reason where there is no Node.js."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

OLDEST_NODE: Final = (20, 19)
"""The first that reads `.js` files as modules by what is in them."""


def find_node() -> str:
    """Return the path of a Node.js that is new enough."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("needs Node.js: the page's modules run under it without a browser")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
    if version < OLDEST_NODE:
        pytest.skip(f"needs Node.js 20.19 or newer, found {said.strip()}")
    return path


def run_module(path: Path, given: object = None) -> Any:  # noqa: ANN401 - JSON of any shape
    """Run a module that reads JSON from its standard input and writes JSON to its standard output."""
    ran = subprocess.run([find_node(), str(path)], input=json.dumps(given), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return json.loads(ran.stdout)
