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


def main() -> None:
    """Answer one request."""
    _limit()
    request = json.load(sys.stdin)
    answer = {"svgs": _svgs(request["specs"])} if "specs" in request else _pdf(request["html"])
    json.dump(answer, sys.stdout)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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
