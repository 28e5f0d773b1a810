import pytest

from app.catalog.spec import PartitionerName
from app.formats.partitioners import partition_of
from app.tasks.suggestions import MAX_KEY_BYTES, MAX_KEYS, Suggestion

KEYS = [b"key-%d" % number for number in range(200)]


def of_partition(partitioner: PartitionerName, partition: int, partitions: int) -> list[bytes]:
    return [key for key in KEYS if partition_of(partitioner, key, partitions) == partition]


@pytest.mark.parametrize("partitioner", ["murmur2", "fnv1a", "fnv1a_reference", "kafkajs_legacy"])
def test_the_partitioner_that_puts_all_keys_where_they_are_is_suggested(partitioner: PartitionerName) -> None:
    suggestion = Suggestion("crc32")
    suggestion.look_at(of_partition(partitioner, 2, 3), 2, 3)
    assert suggestion.fitting == {partitioner}
    assert str(suggestion).startswith(
        f"`partitioner: {partitioner}` would put the {suggestion.keys} keys looked at where"
    )
    assert "new version" in str(suggestion)


def test_keys_of_several_batches_and_partitions_narrow_the_suggestion() -> None:
    suggestion = Suggestion("murmur2")
    one = next(key for key in of_partition("fnv1a", 0, 4) if partition_of("murmur2", key, 4) != 0)
    suggestion.look_at([one], 0, 4)
    assert "the key looked at where it is" in str(suggestion)
    # Absolute values and cleared sign bits are the same partition 0 of 4.
    suggestion.look_at(of_partition("fnv1a", 0, 4)[:20], 0, 4)
    assert suggestion.fitting == {"fnv1a", "fnv1a_reference"}
    assert str(suggestion).startswith("`partitioner: fnv1a` or `partitioner: fnv1a_reference` would put the 21 keys")
    suggestion.look_at(of_partition("fnv1a", 1, 4)[:20], 1, 4)
    assert suggestion.fitting == {"fnv1a"}
    assert suggestion.keys == 41


def test_keys_of_several_partitioners_fit_none() -> None:
    suggestion = Suggestion("murmur2")
    suggestion.look_at([*of_partition("crc32", 1, 3)[:10], *of_partition("murmur2", 1, 3)[:10]], 1, 3)
    assert suggestion.fitting == frozenset()
    assert str(suggestion).startswith("no partitioner that Tablehouse knows puts the 20 keys looked at")


def test_where_the_table_s_own_partitioner_fits_the_form_of_the_keys_is_the_reason() -> None:
    suggestion = Suggestion("murmur2")
    suggestion.look_at(of_partition("murmur2", 0, 4), 0, 4)
    assert "another form of a key" in str(suggestion)


def test_no_more_keys_are_looked_at_than_are_needed_and_none_that_would_take_long() -> None:
    suggestion = Suggestion("murmur2")
    suggestion.look_at([b"x" * (MAX_KEY_BYTES + 1)], 0, 4)
    assert suggestion.keys == 0
    suggestion.look_at(KEYS, 0, 1)
    assert suggestion.keys == MAX_KEYS
