"""The OpenAPI 3.1 document and a page for people, both from the routes' own declarations."""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from control.api.routes import TOTAL, Operation
from control.api.schemas import Exchange, Symbol
from control.http.errors import ErrorBody
from engine.data.names import StreamKind, Transport

_TITLE = "fintickstreams control API"
_ERROR_TEXT = {
    400: "A part of the request is wrong; `field` names it",
    401: "A bearer token is needed, or this one is wrong",
    403: "The token allows less, or the request came from another site",
    404: "No such stream, or no such symbol (`near` has what may have been meant)",
    409: "The stream exists already, or an upgrade goes on",
    413: "The body is too large",
    415: "The body must be plain application/json",
    422: "The exchange does not offer this (`offered` has what it does), or not any more; or"
    " `flush_rows` would be more than `max_rows_per_copy` allows, here or in the configuration",
    429: "Too many, try again after `Retry-After` seconds",
    503: "Not now, try again after `Retry-After` seconds; `error` says why",
}
_NO_TEXT = "The same body: the answer is no, or the light is red"
_ALWAYS = (400, 401, 403, 429)
_OF_COMMANDS = (413, 415, 503)
_RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_PATH_TYPES: dict[str, Any] = {
    "exchange": Exchange, "symbol": Symbol, "kind": StreamKind, "transport": Transport,
}  # fmt: skip
_REF = "#/components/schemas/{name}"


def document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The whole document."""
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = re.sub(r":path\}", "}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": _TITLE,
            "version": version,
            "description": "Begin, end and watch the streams of one collecting engine.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


class _Schemas:
    """JSON schemas of every type that the operations mention."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        kinds: list[Any] = [ErrorBody, *_PATH_TYPES.values()]
        for operation in operations:
            kinds += [*operation.body, *([operation.query] if operation.query else [])]
            for answers in operation.answers.values():
                kinds += answers
        schemas, self.components = msgspec.json.schema_components(kinds, ref_template=_REF)
        self._by_kind = list(zip(kinds, schemas, strict=True))

    def of(self, kinds: Sequence[Any]) -> dict[str, Any]:
        """The schema of a value that is one of `kinds`."""
        found = [self._one(kind) for kind in kinds]
        return found[0] if len(found) == 1 else {"oneOf": found}

    def _one(self, kind: Any) -> dict[str, Any]:
        return next(schema for known, schema in self._by_kind if known is kind or known == kind)

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema, or the one it refers to."""
        name = schema.get("$ref", "").rpartition("/")[2]
        return self.components[name] if name else schema


def _operation(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    content = _content(operation, schemas)
    common = () if operation.method == "GET" else _OF_COMMANDS
    body: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": (operation.handler.__doc__ or operation.summary).strip(),
        "tags": [operation.path.split("/")[1]],
        "parameters": [*_path_parameters(operation, schemas), *_query(operation, schemas)],
        "responses": {
            **content,
            **{
                str(status): {
                    "description": _ERROR_TEXT[status],
                    **({"headers": _RETRY_AFTER} if status in (429, 503) else {}),
                    "content": {"application/json": {"schema": schemas.of([ErrorBody])}},
                }
                for status in sorted({*_ALWAYS, *common, *operation.errors})
            },
        },
    }
    if operation.body:
        body["requestBody"] = {
            "required": operation.needs_body,
            "content": {"application/json": {"schema": schemas.of(operation.body)}},
        }
    return body


def _content(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    text = f"how many {operation.lists} pass the filter"
    headers = {TOTAL: {"description": text, "schema": {"type": "integer"}}}
    return {
        str(status): {
            "description": operation.summary if status < 400 else _NO_TEXT,
            **({"headers": headers} if operation.lists else {}),
            "content": {
                media_type: {"schema": schemas.of(kinds) if kinds else {"type": "string"}}
                for media_type in operation.media_types
            },
        }
        for status, kinds in operation.answers.items()
    }


def _path_parameters(operation: Operation, schemas: _Schemas) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)(?::path)?\}", operation.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": schemas.of([_PATH_TYPES[name]]),
        }


def _query(operation: Operation, schemas: _Schemas) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    schema = schemas.resolved(schemas.of([operation.query]))
    for name, kind in schema["properties"].items():
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": _without_null(kind),
        }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query string has no null: an absent parameter is absent."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    rest = {name: each for name, each in schema.items() if name not in ("anyOf", "default")}
    return {**rest, **kinds[0]} if len(kinds) == 1 else schema


# -- the page ----------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .7rem; overflow: auto; border-radius: 6px; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0;
          padding: .4rem .8rem; }
summary { cursor: pointer; } summary b { display: inline-block; width: 4.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .25rem .5rem; text-align: left;
         vertical-align: top; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'none'"
)


def page(described: dict[str, Any]) -> str:
    """The document for eyes: no script, nothing from elsewhere."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{_TITLE}</title><style>{_STYLE}</style>"
        f"<h1>{_TITLE}</h1><p>Version {_text(described['info']['version'])}. The machine-readable"
        ' form is <a href="/openapi.json">/openapi.json</a>. Errors are'
        " <code>{&quot;error&quot;: …, &quot;kind&quot;: …}</code>.</p>"
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts.append(_operation_html(path, method, operation))
    parts.append("<h2>Types</h2>")
    for name, schema in sorted(described["components"]["schemas"].items()):
        parts.append(
            f'<details id="{_text(name)}"><summary><code>{_text(name)}</code>'
            f" {_text(schema.get('description', ''))}</summary>{_pretty(schema)}</details>"
        )
    return "\n".join(parts)


def _operation_html(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{_text(each['name'])}</code><td>{_text(each['in'])}"
        f"<td>{'required' if each['required'] else ''}<td>{_pretty(each['schema'])}"
        for each in operation["parameters"]
    ]
    body = operation.get("requestBody")
    shown = _pretty(body["content"]["application/json"]["schema"]) if body else ""
    answers = [
        f"<tr><td>{status}<td>{_text(answer['description'])}"
        for status, answer in operation["responses"].items()
    ]
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{_text(path)}</code>"
        f" {_text(operation['summary'])}</summary><p>{_text(operation['description'])}</p>"
        + (f"<h4>Parameters</h4><table>{''.join(rows)}</table>" if rows else "")
        + (f"<h4>Body</h4>{shown}" if shown else "")
        + f"<h4>Answers</h4><table>{''.join(answers)}</table></details>"
    )


def _pretty(schema: object) -> str:
    text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
    linked = re.sub(r"&quot;#/components/schemas/(\w+)&quot;", r'<a href="#\1">\1</a>', _text(text))
    return f"<pre>{linked}</pre>"


def _text(text: object) -> str:
    return html.escape(str(text))
