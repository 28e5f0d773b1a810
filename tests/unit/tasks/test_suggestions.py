import pytest

from tablehouse.catalog.spec import KeySpec, PartitionerName, SourceSpec, SpellingName, ValueSpec
from tablehouse.formats.partitioners import partition_of
from tablehouse.formats.spellings import SPELLINGS
from tablehouse.tasks.suggestions import MAX_KEY_BYTES, MAX_KEYS, Suggestion

KEYS = [b"key-%d" % number for number in range(200)]


def suggestion_for(partitioner: PartitionerName, key: KeySpec | None = None) -> Suggestion:
    return Suggestion(SourceSpec("t", key or KeySpec("string"), ValueSpec("json"), partitioner))


def of_partition(partitioner: PartitionerName, partition: int, partitions: int) -> list[bytes]:
    return [key for key in KEYS if partition_of(partitioner, key, partitions) == partition]


@pytest.mark.parametrize("partitioner", ["murmur2", "fnv1a", "fnv1a_reference", "kafkajs_legacy"])
def test_the_partitioner_that_puts_all_keys_where_they_are_is_suggested(partitioner: PartitionerName) -> None:
    suggestion = suggestion_for("crc32")
    suggestion.look_at(of_partition(partitioner, 2, 3), 2, 3)
    assert suggestion.partitioners == {partitioner}
    assert str(suggestion).startswith(
        f"`partitioner: {partitioner}` would put the {suggestion.keys} keys looked at where"
    )
    assert "new version" in str(suggestion)


def test_keys_of_several_batches_and_partitions_narrow_the_suggestion() -> None:
    suggestion = suggestion_for("murmur2")
    one = next(key for key in of_partition("fnv1a", 0, 4) if partition_of("murmur2", key, 4) != 0)
    suggestion.look_at([one], 0, 4)
    assert "the key looked at where it is" in str(suggestion)
    # Absolute values and cleared sign bits are the same partition 0 of 4.
    suggestion.look_at(of_partition("fnv1a", 0, 4)[:20], 0, 4)
    assert suggestion.partitioners == {"fnv1a", "fnv1a_reference"}
    assert str(suggestion).startswith("`partitioner: fnv1a` or `partitioner: fnv1a_reference` would put the 21 keys")
    suggestion.look_at(of_partition("fnv1a", 1, 4)[:20], 1, 4)
    assert suggestion.partitioners == {"fnv1a"}
    assert suggestion.keys == 41


def test_keys_of_several_partitioners_fit_none() -> None:
    suggestion = suggestion_for("murmur2")
    suggestion.look_at([*of_partition("crc32", 1, 3)[:10], *of_partition("murmur2", 1, 3)[:10]], 1, 3)
    assert suggestion.partitioners == frozenset()
    assert str(suggestion).startswith("no partitioner that Tablehouse knows puts the 20 keys looked at")
    assert "`partitioner: any` reads such topics" in str(suggestion)


def spelled(*spellings: SpellingName, partition: int = 1, extra: bytes = b"") -> list[bytes]:
    keys = [SPELLINGS[name]([f"a/b ü {number}"], ("id",)) + extra for number in range(60) for name in spellings]
    return [key for key in keys if partition_of("murmur2", key, 3) == partition]


JSON = KeySpec("json", ("id",))


def test_where_one_spelling_writes_all_keys_it_is_suggested() -> None:
    suggestion = suggestion_for("murmur2", JSON)
    suggestion.look_at(spelled("python"), 1, 3)
    assert str(suggestion).startswith(f"with `spellings: [python]` the table would look for the {suggestion.keys} keys")
    assert "new version" in str(suggestion)


def test_where_producers_spell_keys_in_two_ways_the_one_that_is_missing_is_added() -> None:
    suggestion = suggestion_for("murmur2", JSON)
    suggestion.look_at(spelled("compact", "php"), 1, 3)
    assert str(suggestion).startswith("with `spellings: [compact, jackson, php]` the table")


def test_keys_that_no_spelling_writes_are_found_in_any_partition() -> None:
    suggestion = suggestion_for("murmur2", JSON)
    suggestion.look_at(spelled("compact", extra=b" "), 1, 3)
    assert str(suggestion).startswith("no spelling of JSON that Tablehouse knows writes the")
    assert "`partitioner: any`" in str(suggestion)


def test_a_wrong_partitioner_and_a_wrong_spelling_are_told_together() -> None:
    suggestion = suggestion_for("crc32", JSON)
    suggestion.look_at([*spelled("python"), b"no key"], 1, 3)
    assert str(suggestion).startswith("`partitioner: murmur2` would put the")
    assert "; and with `spellings: [python]` the table" in str(suggestion)


def test_where_partitioner_and_format_fit_the_form_of_the_keys_is_the_reason() -> None:
    suggestion = suggestion_for("murmur2", KeySpec("uuid"))
    suggestion.look_at(of_partition("murmur2", 0, 4), 0, 4)
    assert "uuids in upper case" in str(suggestion)


def test_no_more_keys_are_looked_at_than_are_needed_and_none_that_would_take_long() -> None:
    suggestion = suggestion_for("murmur2")
    suggestion.look_at([b"x" * (MAX_KEY_BYTES + 1)], 0, 4)
    assert suggestion.keys == 0
    assert "too long" in str(suggestion)
    suggestion.look_at(KEYS, 0, 1)
    assert suggestion.keys == MAX_KEYS
