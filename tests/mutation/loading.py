"""Serves changed source in place of what is on disk: to Python's imports, and to Node's."""

import json
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Final

import pytest

from tests.mutation.mutants import ROOT

NODE_HOOKS: Final = """
const SOURCES = %s;
export async function load(url, context, next) {
  if (!Object.hasOwn(SOURCES, url)) return next(url, context);
  return { format: "module", source: SOURCES[url], shortCircuit: true };
}
"""
NODE_REGISTRATION: Final = 'import { register } from "node:module";\nregister("./hooks.mjs", import.meta.url);\n'


class ChangedModules:
    """Modules whose file is in `sources` are made of that, however they are imported. Nothing goes to disk."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._sources = {str(ROOT / path): source for path, source in sources.items() if path.endswith(".py")}
        self._loaded: set[str] = set()

    @property
    def loaded(self) -> list[str]:
        """The files whose changed source was asked for."""
        return sorted(Path(path).relative_to(ROOT).as_posix() for path in self._loaded)

    def install(self) -> None:
        """From now on, in this process."""
        original = SourceFileLoader.get_code

        def get_code(loader: SourceFileLoader, fullname: str) -> CodeType | None:
            if loader.path not in self._sources:
                return original(loader, fullname)
            self._loaded.add(loader.path)
            return compile(self._sources[loader.path], loader.path, "exec", dont_inherit=True)

        # In the loader of all files, not as a finder: Alembic loads its revisions by their path.
        pytest.MonkeyPatch().setattr(SourceFileLoader, "get_code", get_code)


def node_options(sources: Mapping[str, str], folder: Path) -> str:
    """Return what `NODE_OPTIONS` must be so that Node takes these sources; `folder` gets the hooks."""
    by_url = {(ROOT / path).as_uri(): source for path, source in sources.items() if path.endswith(".js")}
    (folder / "hooks.mjs").write_text(NODE_HOOKS % json.dumps(by_url), "utf-8")
    registration = folder / "register.mjs"
    registration.write_text(NODE_REGISTRATION, "utf-8")
    return f"--import={registration.as_uri()}"
