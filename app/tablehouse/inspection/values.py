"""Chooses the format of a topic's values, and their envelope, from a sample of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from tablehouse.catalog.spec import STRUCTURED_VALUES, Envelope, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.formats.errors import DecodeError
from tablehouse.formats.framing import VALUE_HEADER
from tablehouse.formats.json_text import decode_json
from tablehouse.formats.likely_causes import KindOfSchema, cause_of_value, frame_id, framing_of, is_text, schema_named
from tablehouse.formats.schemas import FORMAT_OF_KIND, SchemaKind, SchemaName
from tablehouse.formats.values import value_format
from tablehouse.inspection.reading import MAX_SCHEMAS, Fit, Reading
from tablehouse.inspection.sample import SampledRecord, TopicSample

#: Minimum share of values that must fit a topic's format. The others would be dead letters.
_MIN_FITTING_SHARE = 0.9

#: Maximum number of unfitting records whose causes are determined.
_MAX_CAUSES = 50


@dataclass(frozen=True, slots=True)
class ValueChoice:
    """The format that fits the values and their envelope, or None with the reason."""

    spec: ValueSpec | None
    envelope: Envelope
    fit: Fit
    why: str


def _decoder(source: SourceSpec, reading: Reading) -> Callable[[SampledRecord], bytes | None]:
    values = value_format(TableSpec("sample", source), reading.schemas)
    return lambda record: values.decode(record.value or b"", record.headers)


def source_of(topic: str, value: ValueSpec, envelope: Envelope = "none") -> SourceSpec:
    """Return a source with values of a format and arbitrary keys."""
    return SourceSpec(topic, KeySpec("bytes"), value, envelope=envelope)


async def fit_of_values(source: SourceSpec, records: Iterable[SampledRecord], reading: Reading) -> Fit:
    """Count the values that a worker could read with a source's definition; all `records` have values."""
    return await reading.fit(records, _decoder(source, reading))


async def rows_of(
    source: SourceSpec, records: Iterable[SampledRecord], reading: Reading
) -> list[tuple[SampledRecord, bytes | None]]:
    """Return the rows of the readable records."""
    decode, found = _decoder(source, reading), []
    for record in records:
        try:
            row = await reading.read(decode, record)
        except DecodeError:
            continue
        found.append((record, row))
    return found


async def members_of(source: SourceSpec, records: Iterable[SampledRecord], reading: Reading) -> list[dict[str, object]]:
    """Return the rows that are JSON objects, as of a source without columns."""
    rows = [decode_json(row) for _, row in await rows_of(source, records, reading) if row is not None]
    return [row for row in rows if isinstance(row, dict)]


async def choose_value(sample: TopicSample, reading: Reading) -> ValueChoice:
    """Return the first candidate that fits nearly all values; `bytes` fits all."""
    records = sample.with_values
    if not records:
        why = "every record is a tombstone" if sample.records else "the topic has no records"
        return ValueChoice(None, "none", Fit(0, 0), why)
    for spec in await _candidates(records, reading):
        fit = await fit_of_values(source_of(sample.topic, spec), records, reading)
        if fit.fitting >= _MIN_FITTING_SHARE * fit.total:
            break
    if spec.format in {"string", "bytes"} and (refusal := await _refused(records, reading)) is not None:
        return ValueChoice(None, "none", Fit(0, len(records)), refusal)
    envelope: Envelope = "none"
    if spec.format in STRUCTURED_VALUES:
        envelope = await _envelope(sample.topic, spec, records, reading)
        fit = await fit_of_values(source_of(sample.topic, spec, envelope), records, reading)
    whys = [f"{fit} values are {_WORDS[spec.format]}{_ENVELOPES[envelope]}"]
    if fit.problem is not None:
        whys += [fit.problem, *await causes_of(spec.format, sample.topic, records, reading)]
    if spec.format in {"string", "bytes"}:
        as_json = await fit_of_values(source_of(sample.topic, ValueSpec("json")), records, reading)
        if 2 * as_json.fitting > as_json.total:
            whys.append(f"{as_json} would be rows as json, and the others dead letters ({as_json.problem})")
    return ValueChoice(spec, envelope, fit, "; ".join(whys))


async def _refused(records: Sequence[SampledRecord], reading: Reading) -> str | None:
    """Return why the framing of most values cannot be read, and the remedy; None if it can."""
    foreign = Counter(framing for record in records if (framing := framing_of(record.value or b"", record.headers)))
    framed = [
        name
        for record in records
        if (name := schema_named(record.value or b"", record.headers, VALUE_HEADER)) is not None
    ]
    if 2 * foreign.total() > len(records):
        [(cause, count)] = foreign.most_common(1)
        return f"{count} of {len(records)} values: {cause}"
    if 2 * len(framed) <= len(records):
        return None
    begin = f"{len(framed)} of {len(records)} values refer to a schema of a registry, before the data or in a header"
    try:
        await reading.read(reading.schemas.known, framed[0])
    except DecodeError as error:
        return f"{begin}: set schema_registry to the one that the producers use ({error})"
    return None


async def causes_of(format_name: str, topic: str, records: Sequence[SampledRecord], reading: Reading) -> list[str]:
    """Return the likely formats of values that do not fit, the most frequent first."""
    decode = _decoder(source_of(topic, ValueSpec(format_name)), reading)  # type: ignore[arg-type]
    found: Counter[str] = Counter()
    for record in records:
        try:
            await reading.read(decode, record)
        except DecodeError:
            value = record.value or b""
            cause = cause_of_value(format_name, value, record.headers, await kinds_for(value, reading))
            if cause is not None:
                found[cause] += 1
        if found.total() >= _MAX_CAUSES:
            break
    return [cause for cause, _ in found.most_common(2)]


async def kinds_for(data: bytes, reading: Reading) -> KindOfSchema:
    """Return a lookup of the kind of the schema that the data seems to refer to, if any."""
    number = frame_id(data)
    return ({} if number is None else {number: await kind_of(number, reading)}).get


async def kind_of(schema: SchemaName, reading: Reading) -> SchemaKind | None:
    """Return the kind of a schema: AVRO, PROTOBUF or JSON; None if the registry does not have it."""
    try:
        return (await reading.read(reading.schemas.known, schema)).kind
    except DecodeError:
        return None


async def _candidates(records: Sequence[SampledRecord], reading: Reading) -> list[ValueSpec]:
    """Return possible specs, the most specific first; the last one always fits."""
    names = dict.fromkeys(
        name
        for record in records
        if (name := schema_named(record.value or b"", record.headers, VALUE_HEADER)) is not None
    )
    kinds = [await kind_of(name, reading) for name in islice(names, MAX_SCHEMAS)]
    found = [ValueSpec(FORMAT_OF_KIND[kind]) for kind in dict.fromkeys(kinds) if kind is not None]
    text = [ValueSpec("string")] if all(is_text(record.value or b"") for record in records) else []
    return [*found, ValueSpec("json_connect"), ValueSpec("json"), *text, ValueSpec("bytes")]


async def _envelope(topic: str, spec: ValueSpec, records: Sequence[SampledRecord], reading: Reading) -> Envelope:
    rows = [decode_json(row) for _, row in await rows_of(source_of(topic, spec), records, reading) if row is not None]
    events = sum(map(_is_change_event, rows))
    return "debezium" if events and events * 2 > len(rows) else "none"


def _is_change_event(row: object) -> bool:
    match row:
        case {"payload": dict(payload), "schema": _}:
            return _is_change_event(payload)
        case {"op": str(), "source": dict(), "before": _} | {"op": str(), "source": dict(), "after": _}:
            return True
    return False


_WORDS = {
    "json": "JSON",
    "string": "text in UTF-8",
    "bytes": "bytes of an unknown format",
    "avro": "Avro with a reference to its schema",
    "protobuf": "Protobuf with a reference to its schema",
    "json_sr": "JSON with a reference to its schema",
    "json_connect": "JSON with its schema, as Kafka Connect writes it",
}
_ENVELOPES = {"none": "", "debezium": ", change events of Debezium", "outbox": ", events of Debezium's outbox"}
