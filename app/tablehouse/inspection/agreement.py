"""Checks a table's definition against a sample of its topic."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from tablehouse.catalog.spec import REGISTRY_FORMATS, SPELLED_KEYS, KeySpec, TableSpec
from tablehouse.formats.likely_causes import cause_of_key
from tablehouse.inspection.keys import best_spellings, choose_key, contents_of, fit_of_keys, unspelled
from tablehouse.inspection.partitioners import choose_partitioner
from tablehouse.inspection.reading import Reading
from tablehouse.inspection.sample import SampledRecord, TopicSample
from tablehouse.inspection.values import causes_of, choose_value, fit_of_values, kinds_for, members_of

#: Maximum number of row members that are named.
_MAX_MEMBERS = 20


async def disagreements(table: TableSpec, sample: TopicSample, reading: Reading) -> AsyncIterator[str]:
    """Yield the contradictions between the sample and the table's definition, each as `field: problem; remedy`."""
    async for problem in _of_keys(table, sample, reading):
        yield f"source.key: {problem}"
    async for problem in _of_values(table, sample, reading):
        yield f"source.value: {problem}"
    for problem in _of_partitioner(table, sample):
        yield f"source.partitioner: {problem}"


async def notes_of_columns(table: TableSpec, sample: TopicSample, reading: Reading) -> AsyncIterator[str]:
    """Yield the columns that no row of the sample has, so that they would always be null; this may be intended."""
    wanted = {member for member in (table.columns or {}).values() if not member.startswith("$")}
    if not wanted:
        return
    rows = await members_of(table.source, sample.with_values, reading)
    found = {name for row in rows for name in row}
    for member in sorted(wanted - found) if rows else ():
        named = ", ".join(sorted(found)[:_MAX_MEMBERS]) + (", ..." if len(found) > _MAX_MEMBERS else "")
        yield f"columns: none of {len(rows)} rows has a member {member}; they have {named or 'none'}"


async def _of_keys(table: TableSpec, sample: TopicSample, reading: Reading) -> AsyncIterator[str]:
    spec, keys = table.source.key, sample.keys
    nulls = sum(record.key is None for record in sample.records)
    if nulls:
        yield f"{nulls} of {len(sample.records)} records have no key and cannot be rows"
    if not keys:
        return
    fit = await fit_of_keys(spec, sample.topic, keys.values(), reading)
    choice = await choose_key(sample, reading)
    better = f"; {choice.spec} would fit {choice.fit}" if choice.spec not in {spec, None} else ""
    if spec.format in REGISTRY_FORMATS and choice.spec == KeySpec("bytes"):
        better = ""  # Every key fits bytes, so this means that the registry or a schema in it is missing.
    if not fit.is_whole:
        yield f"{fit} keys are of format {spec} ({fit.problem}){better}{await _cause(spec.format, keys, reading)}"
    elif spec.format in SPELLED_KEYS and (told := _of_spellings(table, sample)) is not None:
        yield told
    elif better and spec.format in {"int", "long", "bytes"} and choice.fit.is_whole and choice.spec is not None:
        yield f"all {fit.total} keys can be read as {spec} but look like {choice.spec}: {choice.why}"


def _of_spellings(table: TableSpec, sample: TopicSample) -> str | None:
    """Describe the keys that lookups by the table's spellings miss; None if none, or if lookups ask all partitions."""
    spec = table.source.key
    keys = contents_of(spec, sample.keys)
    if sample.partitions == 1 or table.source.partitioner == "any" or not (lost := unspelled(spec, keys)):
        return None
    better = replace(spec, spellings=best_spellings(spec, keys))
    fitting = len(keys) - len(unspelled(better, keys))
    given, found = ", ".join(spec.spellings), ", ".join(better.spellings)
    return (
        f"{len(lost)} of {len(keys)} keys are in none of spellings: [{given}] ({keys[lost[0]]} is the first); "
        f"spellings: [{found}] would fit {fitting} of {len(keys)}"
    )


async def _cause(format_name: str, keys: Mapping[bytes, SampledRecord], reading: Reading) -> str:
    for key, record in keys.items():
        cause = cause_of_key(format_name, key, record.headers, await kinds_for(key, reading))
        if cause is not None:
            return f"; {cause}"
    return ""


async def _of_values(table: TableSpec, sample: TopicSample, reading: Reading) -> AsyncIterator[str]:
    source, records = table.source, sample.with_values
    if not records:
        return
    fit = await fit_of_values(source, records, reading)
    if fit.is_whole:
        return
    choice = await choose_value(sample, reading)
    better = ""
    if choice.spec is not None and (choice.spec.format, choice.envelope) != (source.value.format, source.envelope):
        envelope = "" if choice.envelope == "none" else f" with envelope {choice.envelope}"
        better = f"; {choice.spec}{envelope} would fit {choice.fit}"
    causes = await causes_of(source.value.format, sample.topic, records, reading)
    yield "; ".join([f"{fit} values can be rows ({fit.problem}){better}", *causes])


def _of_partitioner(table: TableSpec, sample: TopicSample) -> list[str]:
    name, choice = table.source.partitioner, choose_partitioner(sample)
    if name == "any" or choice.fitting[name] == choice.keys:
        return []
    counted = f"{choice.fitting[name]} of {choice.keys}"
    return [f"{name} puts {counted} keys where they are; {choice.name or 'none'}: {choice.why}"]
