"""The page at `/docs`: the OpenAPI description as plain HTML, without a script and without anybody else's server."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
article { border-top: 1px solid #8886; padding: 1rem 0; }
h2 { margin: 0; font-size: 1.05rem; }
code, .path { font-family: ui-monospace, monospace; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
table { border-collapse: collapse; margin: .5rem 0; }
td { padding: .15rem 1.5rem .15rem 0; vertical-align: top; }
.quiet { opacity: .75; }
"""

Spec = Mapping[str, object]


def docs_page(spec: Spec) -> str:
    """Return the page for an OpenAPI description."""
    info = _mapping(spec.get("info"))
    title = escape(str(info.get("title", "")))
    operations = "\n".join(_operations(spec))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="stylesheet" href="/docs.css"></head><body>'
        f"<h1>{title}</h1><p>{escape(str(info.get('description', '')))}</p>"
        '<p>For tools: <a href="/openapi.json">openapi.json</a></p>'
        f"{operations}</body></html>"
    )


def _operations(spec: Spec) -> Iterator[str]:
    for path, methods in _mapping(spec.get("paths")).items():
        for method, operation in _mapping(methods).items():
            yield _operation(method.upper(), path, _mapping(operation))


def _operation(method: str, path: str, operation: Spec) -> str:
    rows = "".join(_row(f"{p.get('name')} ({p.get('in')})", _says(p)) for p in _list(operation.get("parameters")))
    body = _mapping(operation.get("requestBody"))
    if body:
        rows += _row("body", ", ".join(_content(body)))
    for status, response in _mapping(operation.get("responses")).items():
        rows += _row(status, ", ".join(_content(_mapping(response))) or str(_mapping(response).get("description", "")))
    return (
        f'<article><h2><span class="method">{escape(method)}</span> <span class="path">{escape(path)}</span></h2>'
        f'<p class="quiet">{escape(str(operation.get("summary", "")))}</p><table>{rows}</table></article>'
    )


def _row(name: str, text: str) -> str:
    return f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>"


def _says(parameter: Spec) -> str:
    schema = _mapping(parameter.get("schema"))
    default = f", default {schema['default']!r}" if "default" in schema else ""
    required = "required" if parameter.get("required") else f"optional{default}"
    return f"{required}. {parameter.get('description', '')}"


def _content(holder: Spec) -> Iterator[str]:
    for media_type, content in _mapping(holder.get("content")).items():
        schema = _mapping(_mapping(content).get("schema"))
        references = [schema, *_list(schema.get("anyOf"))]
        names = [str(item["$ref"]).rpartition("/")[2] for item in references if "$ref" in item]
        yield f"{names[0]} ({media_type})" if names else media_type


def _mapping(value: object) -> Spec:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Spec]:
    return [_mapping(item) for item in value] if isinstance(value, list) else []
