"""Makes the fold that a table's definition names."""

from typing import assert_never

from tablehouse.catalog.spec import FoldSpec
from tablehouse.folds.batches import RowByRow
from tablehouse.folds.count import Count
from tablehouse.folds.fold import Fold
from tablehouse.folds.upsert import MarkedUpsert, Upsert


def make_fold(spec: FoldSpec) -> Fold:
    """Return the fold that a spec describes."""
    match spec.name:
        case "upsert":
            return Upsert()
        case "marked_upsert":
            return MarkedUpsert()
        case "count":
            return RowByRow(Count())
        case other:
            assert_never(other)
