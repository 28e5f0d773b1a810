"""Chooses the format of a topic's keys from a sample of them."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import get_args

from tablehouse.catalog.source import MEMBER
from tablehouse.catalog.spec import SPELLED_KEYS, KeySpec, SourceSpec, SpellingName, ValueSpec
from tablehouse.formats.avro_schema import content_of
from tablehouse.formats.connect_json import unwrap
from tablehouse.formats.connect_keys import connect_key
from tablehouse.formats.errors import DECODE_ERRORS, DecodeError
from tablehouse.formats.framing import KEY_HEADER
from tablehouse.formats.json_text import decode_json
from tablehouse.formats.key_frames import key_frame
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.keys import UUID_TEXT, JsonKey
from tablehouse.formats.likely_causes import frame_id, framing_of, is_plain_ascii, is_text, schema_named
from tablehouse.formats.schemas import FORMAT_OF_KIND, SchemaName
from tablehouse.formats.variants import Known
from tablehouse.inspection.reading import MAX_SCHEMAS, Fit, Reading
from tablehouse.inspection.sample import SampledRecord, TopicSample

_INTEGER_WIDTHS = {"int": 4, "long": 8}

#: Key formats with schemas in a registry.
_FRAMED = frozenset({"avro", "json_sr"})


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """The format that fits the keys, or None with the reason; `rivals` fit equally well, so none is chosen."""

    spec: KeySpec | None
    fit: Fit
    why: str
    rivals: tuple[KeySpec, ...] = ()


async def fit_of_keys(spec: KeySpec, topic: str, records: Iterable[SampledRecord], reading: Reading) -> Fit:
    """Count the keys that a worker could read with a spec."""
    keys = source_keys(SourceSpec(topic, spec, ValueSpec("bytes")), Known(reading.schemas))
    return await reading.fit(records, lambda record: keys.store(record.key or b"", record.headers))


async def choose_key(sample: TopicSample, reading: Reading) -> KeyChoice:
    """Return the first candidate that fits all keys, or else the one that fits most."""
    keys = sample.keys
    nulls = sum(record.key is None for record in sample.records)
    if not keys:
        why = "no record has a key, and a row needs one" if nulls else "the topic has no records"
        return KeyChoice(None, Fit(0, nulls), why)
    foreign = framing_of(next(iter(keys)))
    fits: list[tuple[KeySpec, Fit]] = [
        (spec, await fit_of_keys(spec, sample.topic, keys.values(), reading))
        for spec in await _candidates(keys, reading)
    ]
    whole = [spec for spec, fit in fits if fit.is_whole]
    spec, fit = max(fits, key=lambda one: one[1].fitting)
    if spec.format in SPELLED_KEYS:
        spec = replace(spec, spellings=best_spellings(spec, contents_of(spec, keys)))
    framed = spec.format in _FRAMED
    rivals = tuple(other for other in whole if other != spec and framed and other.format in _INTEGER_WIDTHS)
    why = f"{fit} distinct keys are {_WORDS[spec.format]}"
    if foreign is not None and not framed:
        why += f"; {foreign}"
    elif spec.format in {"bytes", "long"} and all(map(frame_id, keys)):
        why += (
            "; they begin with 0x00 and a number, like those of schema registry serializers: if they are, set "
            "schema_registry"
        )
    if fit.problem is not None:
        why += f"; {fit.problem}"
    if nulls:
        why += f"; {nulls} records have no key and cannot be rows"
    return KeyChoice(spec, fit, why, rivals)


async def _candidates(keys: Mapping[bytes, SampledRecord], reading: Reading) -> list[KeySpec]:
    """Return possible specs, the most specific first; the last one always fits."""
    found: list[KeySpec] = [spec async for spec in _registered(keys, reading)]
    if any(map(UUID_TEXT.fullmatch, keys)):
        found.append(KeySpec("uuid"))
    found += _of_json(keys)
    text = [key for key in keys if is_text(key)]
    if text:
        found.append(KeySpec("string"))
    for name, width in _INTEGER_WIDTHS.items():
        # Four letters read as a number would be above a billion.
        if all(len(key) == width for key in keys) and not all(map(is_plain_ascii, keys)):
            found.insert(len(found) - bool(text), KeySpec(name))  # type: ignore[arg-type]
    found.append(KeySpec("bytes"))
    return list(dict.fromkeys(found))


async def _registered(keys: Mapping[bytes, SampledRecord], reading: Reading) -> AsyncIterator[KeySpec]:
    """Return possible specs for keys with schemas in a registry."""
    examples: dict[SchemaName, SampledRecord] = {}
    for key, record in keys.items():
        named = schema_named(key, record.headers, KEY_HEADER)
        if named is not None:
            examples.setdefault(named, record)
    for named, record in islice(examples.items(), MAX_SCHEMAS):
        try:
            schema = await reading.read(reading.schemas.known, named)
        except DecodeError:
            continue
        name = FORMAT_OF_KIND[schema.kind]
        if name == "avro":
            try:
                fields = _record_fields(content_of(schema))
            except DECODE_ERRORS:
                continue
            yield _with_fields("avro", fields)
        elif name == "json_sr":
            key = record.key or b""
            yield _with_fields("json_sr", _members(key[key_frame(key, record.headers).content :]))


def contents_of(spec: KeySpec, keys: Mapping[bytes, SampledRecord]) -> dict[bytes, SampledRecord]:
    """Return the JSON of keys of one of SPELLED_KEYS, with the first record of each; without keys of other formats."""
    if spec.format == "json":
        return dict(keys)
    found: dict[bytes, SampledRecord] = {}
    for key, record in keys.items():
        with suppress(DecodeError):
            found.setdefault(key[key_frame(key, record.headers).content :], record)
    return found


def best_spellings(spec: KeySpec, keys: Iterable[bytes]) -> tuple[SpellingName, ...]:
    """Return the smallest set of spellings that covers the most keys, preferring the default ones."""
    json_keys, written = JsonKey(spec), []
    for key in keys:
        with suppress(DecodeError):
            written.append(json_keys.spellings_of(key))
    chosen: tuple[SpellingName, ...] = ()
    if all(not some.isdisjoint(spec.spellings) for some in written):
        return spec.spellings
    left = [some for some in written if some]
    while left:
        best = max(get_args(SpellingName), key=lambda name: sum(name in some for some in left))
        chosen = (*chosen, best)
        left = [some for some in left if best not in some]
    return chosen or spec.spellings


def unspelled(spec: KeySpec, keys: Iterable[bytes]) -> list[bytes]:
    """Return the keys of a JSON spec that match none of its spellings."""
    json_keys, lost = JsonKey(spec), []
    for key in keys:
        with suppress(DecodeError):
            if json_keys.spellings_of(key).isdisjoint(spec.spellings):
                lost.append(key)
    return lost


def _record_fields(definition: object) -> tuple[str, ...] | None:
    match definition:
        case {"type": "record", "fields": [*fields]}:
            names = [field.get("name") for field in fields if isinstance(field, dict)]
            return tuple(name for name in names if isinstance(name, str))
    return ()


def _of_json(keys: Iterable[bytes]) -> Iterator[KeySpec]:
    for key in keys:
        try:
            wrapped = unwrap(key)
            if wrapped is not None:
                fields = _members_of_connect(*wrapped)
                if fields is not None:
                    yield _with_fields("json_connect", fields)
                return
            value = decode_json(key)
        except DecodeError:
            continue
        if isinstance(value, dict) and (fields := _members(key)) is not None:
            yield _with_fields("json", fields)
            return
        if isinstance(value, str):
            # Other scalars have the same text in a URL as keys of format string, which accepts any text.
            yield KeySpec("json")
            return


def _members_of_connect(schema: bytes, payload: bytes) -> tuple[str, ...] | None:
    value = decode_json(payload)
    return _members_of(connect_key(schema, tuple(value) if isinstance(value, dict) else ()).show(value))


def _members(text: bytes) -> tuple[str, ...] | None:
    """Return the members of a JSON object of scalars, () for a scalar; None for other JSON and for non-JSON."""
    try:
        return _members_of(decode_json(text))
    except DecodeError:
        return None


def _members_of(value: object) -> tuple[str, ...] | None:
    if isinstance(value, dict):
        scalars = value and not any(isinstance(one, dict | list) for one in value.values())
        return tuple(value) if scalars and all(map(MEMBER.pattern.fullmatch, value)) else None
    return None if isinstance(value, list) else ()


def _with_fields(name: str, fields: tuple[str, ...] | None) -> KeySpec:
    fields = fields or ()
    return KeySpec(name, fields, bare=len(fields) == 1)  # type: ignore[arg-type]


_WORDS = {
    "string": "text in UTF-8",
    "bytes": "bytes of an unknown format",
    "int": "integers of 4 bytes",
    "long": "integers of 8 bytes",
    "uuid": "uuids",
    "json": "JSON",
    "avro": "Avro whose schema the registry knows",
    "json_sr": "JSON whose schema the registry knows",
    "json_connect": "JSON of Kafka Connect with its schema",
}
