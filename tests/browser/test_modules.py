"""The page's pure modules, tested under Node without a browser."""

import subprocess
from pathlib import Path

import pytest

from tests.support.node import find_node

HERE = Path(__file__).parent


@pytest.mark.parametrize("suite", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_modules(suite: str) -> None:
    command = [find_node(), "--test", "--test-reporter=spec", str(HERE / suite)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
