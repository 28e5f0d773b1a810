"""The JSON Schema of tables.yaml, derived from the declarations of its fields; tables.schema.json contains it.

`python -m deploy.helm.generate` writes the file. The conditions between fields are written here by hand; load.py and
source.py check the same ones, with error messages.
"""

import json
from collections.abc import Collection
from typing import Any, get_args

from tablehouse.catalog.load import TABLE
from tablehouse.catalog.source import KEY, KEY_FORMAT, MEMBER_KIND, SOURCE, VALUE, VALUE_FORMAT
from tablehouse.catalog.spec import (
    SPELLED_KEYS,
    STRUCTURED_KEYS,
    STRUCTURED_VALUES,
    KeyFormatName,
    ValueFormatName,
)

_COLUMNS_OF_ENVELOPE = {
    "columnsOfRow": r"^[^$]",
    "columnsOfDebezium": r"^[^$]|^\$op$|^\$ts_ms$|^\$source\..+$",
    "columnsOfOutbox": r"^[^$]|^\$headers\..+$",
}


def tables_schema() -> dict[str, Any]:
    """Return the JSON Schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tables.yaml",
        "description": "The tables that a group of Tablehouse workers builds from Kafka topics.",
        "type": "object",
        "required": ["tables"],
        "additionalProperties": False,
        "properties": {"tables": {"type": "array", "minItems": 1, "items": _ref("table")}},
        "$defs": {
            "table": TABLE.schema | {"allOf": _conditions_of_table()},
            "source": SOURCE.schema
            | {
                "if": {"required": ["envelope"], "properties": {"envelope": {"not": {"const": "none"}}}},
                "then": {"properties": {"value": _ref("structuredValue")}},
            },
            "key": _format_or_mapping(
                "The format of the topic's keys.", "keyFormat", KEY.schema | _conditions_of_key()
            ),
            "keyFormat": KEY_FORMAT.kind.schema,
            "value": _format_or_mapping(
                "The format of the topic's values.", "valueFormat", VALUE.schema | {"allOf": _conditions_of_value()}
            ),
            "valueFormat": VALUE_FORMAT.kind.schema,
            "structuredValue": _formats({"enum": _in_order(get_args(ValueFormatName), STRUCTURED_VALUES)}),
            "framedJson": _formats({"const": "json_sr"}),
            "connectJson": _formats({"const": "json_connect"}),
            "protobuf": _formats({"const": "protobuf"}),
            "columns": {
                "description": "The members that rows keep: a list of names, or a mapping from new name to member.",
                "anyOf": [
                    {"type": "array", "minItems": 1, "uniqueItems": True, "items": _ref("member")},
                    {
                        "type": "object",
                        "minProperties": 1,
                        "propertyNames": _ref("member"),
                        "additionalProperties": _ref("member"),
                    },
                ],
            },
            **{
                name: {
                    "anyOf": [
                        {"type": "array", "items": {"pattern": pattern}},
                        {"type": "object", "additionalProperties": {"pattern": pattern}},
                    ]
                }
                for name, pattern in _COLUMNS_OF_ENVELOPE.items()
            },
            "member": MEMBER_KIND.kind.schema,
        },
    }


def tables_schema_text() -> str:
    """Return the contents of tables.schema.json."""
    return json.dumps(tables_schema(), indent=2) + "\n"


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _in_order(names: Collection[str], chosen: Collection[str]) -> list[str]:
    return [name for name in names if name in chosen]


def _formats(which: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a format alone, or of a mapping with it."""
    return {"anyOf": [which, {"type": "object", "properties": {"format": which}}]}


def _format_or_mapping(description: str, alone: str, mapping: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "anyOf": [_ref(alone), mapping]}


def _conditions_of_table() -> list[dict[str, Any]]:
    def envelope(name: str, columns: str) -> dict[str, Any]:
        # Without an envelope the field may be left out.
        required = {} if name == "none" else {"required": ["envelope"]}
        return {
            "if": {"properties": {"source": {**required, "properties": {"envelope": {"const": name}}}}},
            "then": {"properties": {"columns": _ref(columns)}},
        }

    return [
        {
            "if": {"required": ["columns"]},
            "then": {"properties": {"source": {"properties": {"value": _ref("structuredValue")}}}},
        },
        envelope("none", "columnsOfRow"),
        envelope("debezium", "columnsOfDebezium"),
        envelope("outbox", "columnsOfOutbox"),
        {
            "if": {"required": ["writable"], "properties": {"writable": {"const": True}}},
            "then": {
                "properties": {
                    "columns": False,
                    "source": {
                        "properties": {
                            "envelope": {"const": "none"},
                            "partitioner": {"not": {"const": "any"}},
                            "key": {"not": {"anyOf": [_ref("framedJson"), _ref("connectJson")]}},
                            "value": {"not": {"anyOf": _unwritable_values()}},
                        }
                    },
                }
            },
        },
    ]


def _unwritable_values() -> list[dict[str, Any]]:
    return [
        _ref("framedJson"),
        _ref("connectJson"),
        _ref("protobuf"),
        {
            "type": "object",
            "required": ["framing"],
            "properties": {"framing": {"not": {"const": "registry"}}},
        },
        {
            "type": "object",
            "required": ["schema"],
            "properties": {"schema": {"type": "string", "not": {"const": "latest"}}},
        },
    ]


def _conditions_of_key() -> dict[str, Any]:
    formats = get_args(KeyFormatName)
    return {
        "not": {"required": ["field", "fields"]},
        "allOf": [
            {
                "if": {"anyOf": [{"required": ["field"]}, {"required": ["fields"]}]},
                "then": {"properties": {"format": {"enum": _in_order(formats, STRUCTURED_KEYS)}}},
            },
            {
                "if": {"required": ["spellings"]},
                "then": {"properties": {"format": {"enum": _in_order(formats, SPELLED_KEYS)}}},
            },
        ],
    }


def _conditions_of_value() -> list[dict[str, Any]]:
    return [
        {
            "if": {"anyOf": [{"required": ["schema"]}, {"required": ["subject"]}, {"required": ["framing"]}]},
            "then": {"properties": {"format": {"const": "avro"}}},
        },
        {
            "if": {"required": ["framing"], "properties": {"framing": {"not": {"const": "registry"}}}},
            "then": {"required": ["schema"], "properties": {"schema": {"not": {"enum": ["latest", "written"]}}}},
        },
        {"if": {"required": ["subject"]}, "then": {"properties": {"schema": {"const": "latest"}}}},
    ]
