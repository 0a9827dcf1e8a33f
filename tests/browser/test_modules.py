"""The page's pure modules, tested under Node without a browser."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OLDEST_NODE = (20, 19)  # the first that reads `.js` files as modules by what is in them


def find_node() -> str:
    path = shutil.which("node")
    if path is None:
        pytest.skip("needs Node.js: the page's modules run under it without a browser")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
    if version < OLDEST_NODE:
        pytest.skip(f"needs Node.js 20.19 or newer, found {said.strip()}")
    return path


@pytest.mark.parametrize("suite", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_modules(suite: str) -> None:
    command = [find_node(), "--test", "--test-reporter=spec", str(HERE / suite)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
