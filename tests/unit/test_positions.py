"""Positions as values: their text, what is lacking of one, and what compares copies of a partition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.positions import Position

PARTITIONS = st.integers(0, 999_999_999)
TOPICS = st.from_regex(r"\A[a-zA-Z0-9._-]{1,30}\Z")
NAMES = st.one_of(PARTITIONS.map(str), st.tuples(TOPICS, PARTITIONS).map(lambda name: f"{name[0]}/{name[1]}"))
OFFSETS = st.integers(-1, 10**18 - 1)
POSITIONS = st.dictionaries(NAMES, OFFSETS, min_size=1, max_size=6).map(lambda found: Position.of(found.items()))

TWO = Position(("orders/2", "refunds/2"), (1207, 31))


@given(POSITIONS, PARTITIONS)
def test_a_position_is_read_back_from_its_text_and_from_its_form_in_json(position: Position, partition: int) -> None:
    assert Position.parse(position.text) == position
    assert Position.from_json(partition, position.in_json(partition)) == position


@pytest.mark.parametrize(
    ("position", "text"),
    [
        (Position(("2",), (1207,)), "2:1207"),
        (Position(("2",), (-1,)), "2:-1"),
        (TWO, "orders/2:1207,refunds/2:31"),
        (Position(("0", "1", "2"), (5, -1, 0)), "0:5,1:-1,2:0"),
    ],
)
def test_the_text_has_every_input_in_its_order(position: Position, text: str) -> None:
    assert position.text == text
    assert Position.parse(text) == position


@pytest.mark.parametrize(
    "text", ["", "2", "2:", ":7", "2:-2", "2:7,", "2: 7", "/2:7", "orders/:7", "a b/2:7", "2:7\r\n", "é/2:7", "a/b/2:7"]
)
def test_any_other_text_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(text)


@pytest.mark.parametrize("value", [None, [], {}, 1.5, "x\r\ny"])
def test_any_other_form_in_json_is_no_position(value: object) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.from_json(2, value)


def test_a_single_input_that_has_the_partition_as_its_name_is_its_offset_in_json() -> None:
    assert Position(("2",), (1207,)).in_json(2) == 1207
    assert Position(("3",), (1207,)).in_json(2) == "3:1207"
    assert Position(("orders/2",), (1207,)).in_json(2) == "orders/2:1207"
    assert TWO.in_json(2) == "orders/2:1207,refunds/2:31"


def test_of_several_offsets_of_an_input_the_highest_counts() -> None:
    assert Position.parse("2:7,3:1,2:41,2:9") == Position(("2", "3"), (41, 1))


@pytest.mark.parametrize(
    ("required", "lacking"),
    [
        ("orders/2:1207", None),
        ("orders/2:1208", "orders/2:1208"),
        ("orders/2:1207,refunds/2:32", "refunds/2:32"),
        ("refunds/2:99,orders/2:9999", "refunds/2:99,orders/2:9999"),
        ("orders/3:9999,refunds/3:9999", None),
        ("orders/2:-1", None),
        ("2:9999", None),
    ],
)
def test_lacking_is_what_is_required_of_the_own_inputs_and_not_reached(required: str, lacking: str | None) -> None:
    found = TWO.lacking(Position.parse(required))
    assert (None if found is None else found.text) == lacking


@given(POSITIONS)
def test_a_position_lacks_nothing_of_itself(position: Position) -> None:
    assert position.lacking(position) is None


@given(st.integers(-1, 10**15))
def test_the_total_of_a_single_input_is_its_offset(offset: int) -> None:
    assert Position(("2",), (offset,)).total == offset


def test_the_total_of_several_inputs_is_minus_one_without_any_record_and_rises_by_each_offset() -> None:
    assert Position(("orders/2", "refunds/2"), (-1, -1)).total == -1
    assert Position(("orders/2", "refunds/2"), (0, -1)).total == 0
    assert Position(("orders/2", "refunds/2"), (9, 4)).total == 14


def test_the_lower_of_two_positions_is_what_both_have_reached() -> None:
    other = Position(("orders/2", "refunds/2"), (1300, 0))
    assert TWO.lower(other) == other.lower(TWO) == Position(("orders/2", "refunds/2"), (1207, 0))
