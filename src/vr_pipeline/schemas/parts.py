"""Tables that need not fit in memory, as a sequence of parts."""

from collections.abc import Callable, Iterable, Iterator

import pandas as pd


class TableParts:
    """A table as a sequence of tables with some of its rows each, made again for every iteration.

    Args:
        make: returns the parts, which have the same columns.
    """

    def __init__(self, make: Callable[[], Iterable[pd.DataFrame]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return iter(self._make())

    def map(self, function: Callable[[pd.DataFrame], pd.DataFrame]) -> "TableParts":
        """Return the table whose parts are the results of a function of these."""
        return TableParts(lambda: map(function, self))

    def whole(self) -> pd.DataFrame:
        """Return the rows of all parts as one table in memory, or an empty one if there is no part."""
        parts = list(self)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def parts_of(table: pd.DataFrame | TableParts) -> Iterable[pd.DataFrame]:
    """Return the parts of a table; a table in memory is one part."""
    return table if isinstance(table, TableParts) else (table,)
