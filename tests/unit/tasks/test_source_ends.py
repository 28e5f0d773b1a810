"""What a listing of the source's end says of a position, and what it does not."""

from tablehouse.tasks.log import Bounds
from tablehouse.tasks.source_ends import KNOWN_SECONDS, SourceEnds


def test_a_position_is_as_fresh_as_the_newest_end_that_it_has_reached() -> None:
    ends = SourceEnds()
    ends.listed(Bounds(0, 5), 10.0, 2)
    ends.listed(Bounds(0, 8), 11.0, 3)
    ends.applied(6)
    assert (ends.reached_at, ends.end(11.0)) == (10.0, 8)
    ends.applied(7)
    assert ends.reached_at == 11.0
    assert ends.end(11.0 + KNOWN_SECONDS) == 8
    assert ends.end(11.1 + KNOWN_SECONDS) is None


def test_what_an_open_transaction_holds_back_counts_as_not_applied() -> None:
    ends = SourceEnds()
    ends.listed(Bounds(0, 5), 10.0, 4)
    ends.applied(4)
    ends.listed(Bounds(0, 5, held=3), 11.0, 4)
    ends.applied(4)
    assert (ends.reached_at, ends.end(11.0), ends.stable_end(11.0)) == (10.0, 8, 5)
    assert ends.held_back() == (Bounds(0, 5, held=3), 0.0)
    ends.listed(Bounds(0, 5, held=4), 13.0, 4)
    assert ends.held_back() == (Bounds(0, 5, held=4), 2.0)
    # The next one begins where that one ended.
    ends.listed(Bounds(0, 9, held=1), 14.0, 4)
    assert ends.held_back() == (Bounds(0, 9, held=1), 0.0)
    ends.listed(Bounds(0, 11), 15.0, 4)
    assert ends.held_back() is None


def test_of_a_source_that_is_missing_nothing_is_known_until_it_is_listed_again() -> None:
    ends = SourceEnds()
    ends.listed(Bounds(0, 5), 10.0, 4)
    ends.listed(Bounds(0, 5, held=3), 11.0, 4)
    ends.applied(4)
    ends.forget()
    assert (ends.reached_at, ends.end(11.0), ends.held_back()) == (None, None, None)
    ends.listed(Bounds(0, 8), 12.0, 4)
    ends.applied(4)
    assert (ends.reached_at, ends.end(12.0)) == (None, 8)
    ends.applied(7)
    assert ends.reached_at == 12.0


def test_a_source_that_lacks_what_was_applied_tells_nothing_however_long_it_grows() -> None:
    ends = SourceEnds()
    ends.listed(Bounds(0, 5), 10.0, 4)
    ends.applied(4)
    for at, end in ((11.0, 2), (12.0, 5), (13.0, 50)):
        ends.listed(Bounds(0, end), at, 4)
        ends.applied(4)
        assert (ends.reached_at, ends.end(at), ends.stable_end(at)) == (None, None, None)
    ends.trust()
    ends.listed(Bounds(0, 50), 14.0, 4)
    assert ends.end(14.0) == 50
    # A position that has moved on since the end was asked for is no such source.
    ends.listed(Bounds(0, 50), 15.0, 49)
    ends.applied(60)
    assert (ends.reached_at, ends.end(15.0)) == (15.0, 50)


def test_a_source_that_lacks_what_a_store_came_with_tells_nothing_whenever_it_was_listed() -> None:
    for before in (True, False):
        ends = SourceEnds()
        if before:
            ends.listed(Bounds(0, 1), 10.0, -1)
        ends.loaded(4)
        if not before:
            # Asked for before the store was loaded.
            ends.listed(Bounds(0, 1), 10.0, -1)
        ends.applied(4)
        assert (ends.reached_at, ends.end(10.0), ends.stable_end(10.0)) == (None, None, None)
    whole = SourceEnds()
    whole.listed(Bounds(0, 5), 10.0, -1)
    whole.loaded(4)
    whole.applied(4)
    assert (whole.reached_at, whole.end(10.0)) == (10.0, 5)
