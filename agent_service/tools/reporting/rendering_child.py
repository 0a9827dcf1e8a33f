"""The child process that draws: one request on standard input, one answer on standard output, both JSON.

`{"specs": [...]}` (Vega-Lite) → `{"svgs": [...]}`. `{"html": "..."}` → `{"pdf": "base64"}`, or `{"absent": true}` where
WeasyPrint is not installed. Neither library may load anything from anywhere.
"""

import base64
import json
import sys
from importlib import import_module

CPU_SECONDS = 60
"""Of processor time; the parent ends the process much sooner."""

PDF_MEMORY_BYTES = 2 * 1024**3
"""Of address space, while a PDF is made."""


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    _limit(memory="html" in request)
    answer = {"svgs": _svgs(request["specs"])} if "specs" in request else _pdf(request["html"])
    json.dump(answer, sys.stdout)


def _limit(*, memory: bool) -> None:
    """Bound what the process may use. The engine that draws charts reserves far more memory than it uses: no bound."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (PDF_MEMORY_BYTES, PDF_MEMORY_BYTES))


def _svgs(specs: list[dict[str, object]]) -> list[str]:
    import vl_convert

    return [vl_convert.vegalite_to_svg(json.dumps(spec), allowed_base_urls=[]) for spec in specs]


def _pdf(html: str) -> dict[str, object]:
    try:
        weasyprint, urls = import_module("weasyprint"), import_module("weasyprint.urls")
    except (ImportError, OSError):  # OSError: a library of the system is missing
        return {"absent": True}
    fetcher = urls.URLFetcher(allowed_protocols=("data",), allow_redirects=False)
    document = weasyprint.HTML(string=html, url_fetcher=fetcher).write_pdf()
    return {"pdf": base64.b64encode(document).decode()}


if __name__ == "__main__":
    main()
