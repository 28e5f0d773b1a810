import pytest

from tablehouse.stores.rows import DELETED, HEAD_SIZE, LAYOUT_VERSION, Row, RowLayoutError, pack_head, payloads, unpack

#: The first release's bytes: other bytes would make every store and changelog unreadable.
GOLDEN = bytes.fromhex("01 00 0000018fcd0e7a00 0000000000000007") + b'{"a":1}'


def test_a_row_has_the_bytes_it_always_had() -> None:
    assert pack_head(LAYOUT_VERSION, 0, 0x18FCD0E7A00, 7) + b'{"a":1}' == GOLDEN
    assert unpack(GOLDEN) == Row(b'{"a":1}', 0x18FCD0E7A00, 7)
    assert HEAD_SIZE == 18


def test_an_empty_payload_is_a_row() -> None:
    assert unpack(GOLDEN[:HEAD_SIZE]).payload == b""


@pytest.mark.parametrize("data", [b"", GOLDEN[: HEAD_SIZE - 1], b"\x02" + GOLDEN[1:], b"\x01\x02" + GOLDEN[2:]])
def test_bytes_of_another_layout_are_refused(data: bytes) -> None:
    with pytest.raises(RowLayoutError):
        unpack(data)


def test_the_payloads_of_many_rows_are_those_of_each() -> None:
    row = pack_head(LAYOUT_VERSION, 0, 5, 7)
    mark = pack_head(LAYOUT_VERSION, DELETED, 5, 7)
    assert payloads([row + b"a", None, row, mark]) == [b"a", None, b"", None]


def test_a_mark_of_a_deleted_key_has_the_timestamp_and_the_offset_of_the_record_that_deleted_it() -> None:
    assert unpack(pack_head(LAYOUT_VERSION, DELETED, 5, 7)) == Row(b"", 5, 7, deleted=True)


@pytest.mark.parametrize("data", [b"", b"\x01\x00", b"\x02\x00" + bytes(20), b"\x01\x02" + bytes(20)])
def test_one_row_of_another_layout_among_many_is_found(data: bytes) -> None:
    with pytest.raises(RowLayoutError):
        payloads([pack_head(LAYOUT_VERSION, 0, 5, 7), data])
