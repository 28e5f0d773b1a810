"""The OpenAPI document as a page."""

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from tablehouse.http.pages import link, page, table

_CODE = re.compile(r"`([^`]*)`")


def reference_page(document: Mapping[str, Any]) -> bytes:
    """Return a page with everything that is in the OpenAPI document of this server."""
    return _Reference(document).page()


class _Reference:
    """Writes the parts of the page."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        #: The operations by tag, with path and method. HEAD is as GET everywhere.
        self._operations: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if method not in {"parameters", "head"}:
                    self._operations.setdefault(operation["tags"][0], []).append((path, method, operation))

    def page(self) -> bytes:
        info = self._document["info"]
        about = f"{_text(info['description'])} This page shows the OpenAPI document, {link('/openapi.json')}."
        parts = [f"<h1>{escape(info['title'])} API</h1>\n<p>{about} HEAD works wherever GET does.</p>\n"]
        parts += [self._contents(tag) for tag in self._operations]
        for tag, operations in self._operations.items():
            parts.append(f"<h2>{escape(tag.capitalize())}</h2>\n")
            parts += [self._operation(path, method, operation) for path, method, operation in operations]
        parts.append("<h2>Schemas</h2>\n")
        parts += [self._schema(name, schema) for name, schema in self._document["components"]["schemas"].items()]
        return page(f"{info['title']} API", "".join(parts))

    def _contents(self, tag: str) -> str:
        entries = [
            f'<li><a href="#{escape(operation["operationId"])}"><code>{method.upper()} {escape(path)}</code></a> '
            f"{_text(operation['summary'])}</li>\n"
            for path, method, operation in self._operations[tag]
        ]
        return f"<h3>{escape(tag.capitalize())}</h3>\n<ul>\n{''.join(entries)}</ul>\n"

    def _operation(self, path: str, method: str, operation: Mapping[str, Any]) -> str:
        given = [*self._document["paths"][path].get("parameters", ()), *operation.get("parameters", ())]
        return (
            f'<h3 id="{escape(operation["operationId"])}"><code>{method.upper()} {escape(path)}</code></h3>\n'
            f"<p>{_text(operation['summary'])} {_text(operation.get('description', ''))}</p>\n"
            + table(("parameter", "in", "type", "what it is"), [self._parameter(one) for one in given])
            + self._body(operation.get("requestBody"))
            + table(
                ("status", "content", "headers", "what it means"),
                [self._response(status, one) for status, one in operation["responses"].items()],
            )
        )

    def _parameter(self, given: Mapping[str, Any]) -> tuple[str, ...]:
        parameter = self._resolved(given)
        required = "" if parameter["required"] else " (optional)"
        return (
            f"<code>{escape(parameter['name'])}</code>{required}",
            escape(parameter["in"]),
            _type(parameter["schema"]),
            _text(parameter["description"]),
        )

    def _body(self, body: Mapping[str, Any] | None) -> str:
        if body is None:
            return ""
        return f"<p>Body: {_contents_of(body)}. {_text(body['description'])}</p>\n"

    def _response(self, status: str, given: Mapping[str, Any]) -> tuple[str, ...]:
        response = self._resolved(given)
        headers = ", ".join(f"<code>{escape(name)}</code>" for name in response.get("headers", ()))
        return (escape(status), _contents_of(response), headers, _text(response["description"]))

    def _schema(self, name: str, schema: Mapping[str, Any]) -> str:
        rows = [
            (f"<code>{escape(path)}</code>", _type(member), _text(member.get("description", "")))
            for path, member in _members(schema, "")
        ]
        return (
            f'<h3 id="schema-{escape(name)}">{escape(name)}</h3>\n<p>{_text(schema.get("description", ""))}</p>\n'
            + table(("member", "type", "what it is"), rows)
        )

    def _resolved(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in node:
            return node
        found: Any = self._document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        resolved: Mapping[str, Any] = found
        return resolved


def _members(schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Go through the members of a schema's objects, those of nested ones by their paths."""
    for name, member in schema.get("properties", {}).items():
        yield prefix + name, member
        yield from _members(member, f"{prefix}{name}.")
        yield from _members(member.get("items", {}), f"{prefix}{name}[].")


def _contents_of(node: Mapping[str, Any]) -> str:
    contents = node.get("content", {}).items()
    return "<br>".join(f"<code>{escape(kind)}</code>: {_type(content['schema'])}" for kind, content in contents)


def _type(schema: Mapping[str, Any]) -> str:
    """Return what a schema takes, in a few words of HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return link(f"#schema-{name}", name)
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in values)
    if "oneOf" in schema and "type" not in schema:
        return " or ".join(_type(one) for one in schema["oneOf"])
    kinds = schema.get("type", "any value")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(f"array of {_type(schema['items'])}" if kind == "array" else escape(kind) for kind in kinds)


def _text(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))
