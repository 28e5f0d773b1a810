from tablehouse.model import TopicPartition
from tablehouse.tasks.log import Bounds
from tablehouse.tasks.open_transactions import OpenTransactions
from tablehouse.tasks.source_ends import SourceEnds

SOURCE = TopicPartition("orders", 0)


def listed(*bounds: Bounds, claimed_end: int = 0) -> OpenTransactions:
    """Return what is known after these listings, one second from the other."""
    ends = SourceEnds()
    transactions = OpenTransactions(SOURCE, ends)
    transactions.claimed_end = claimed_end
    for second, found in enumerate(bounds):
        ends.listed(found, float(second), 0)
    return transactions


def test_records_of_open_transactions_alone_leave_misses_proof() -> None:
    transactions = listed(Bounds(0, 5, held=3, settled=False), claimed_end=8)
    assert transactions.held_back(4) == 3
    assert transactions.doubt(4) is None


def test_settled_records_that_were_held_back_at_the_claim_are_missing() -> None:
    assert listed(Bounds(0, 5, held=3, settled=True), claimed_end=8).doubt(4) is not None


def test_records_of_the_claim_before_the_stable_end_are_missing_whatever_another_transaction_holds_back() -> None:
    # One transaction held back 2 to 4 at the claim and is over; another one holds back its own records after 5.
    transactions = listed(Bounds(0, 2, held=3, settled=True), Bounds(0, 5, held=2, settled=False), claimed_end=5)
    assert "3 offsets of orders[0]" in (transactions.doubt(1) or "")
    assert "1 offsets of orders[0]" in (transactions.doubt(3) or "")
    assert transactions.doubt(4) is None
