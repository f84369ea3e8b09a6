"""The rows that differ most, few and short, of all that were compared: the same ones in whatever order they came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from turnout.core.tensors import Array, Tensors

#: Rows that are kept; of one row, values of each side; of one value, characters.
MAX_ROWS, MAX_VALUES, MAX_LENGTH = 20, 64, 64


class Rank(NamedTuple):
    """What comes first: another class, then the larger difference, then chance that is the same everywhere."""

    flipped: bool
    distance: float
    draw: int


class Worst:
    """The worst rows with what both versions answered and, where it may be kept, what they were asked."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows: list[tuple[Rank, dict[str, Any]]] = []

    def would_take(self, rank: Rank) -> bool:
        """Whether a row of this rank is among the worst."""
        return len(self.rows) < MAX_ROWS or rank > self.rows[-1][0]

    def add(self, rank: Rank, said: dict[str, Any]) -> None:
        """Keeps a row for which `would_take` holds."""
        self._keep([*self.rows, (rank, said)])

    def plus(self, other: Worst) -> Worst:
        """The worst of both."""
        found = Worst()
        found._keep([*self.rows, *other.rows])
        return found

    def to_json(self, *, inputs: bool = True) -> list[dict[str, Any]]:
        """As plain JSON values, the worst first; without what was asked, if so wanted."""
        return [
            {
                **{key: value for key, value in said.items() if inputs or key != "inputs"},
                "flipped": rank.flipped,
                "distance": rank.distance,
            }
            for rank, said in self.rows
        ]

    @classmethod
    def from_json(cls, said: Sequence[Mapping[str, Any]]) -> Worst:
        """The reverse of `to_json`."""
        found = cls()
        found._keep(
            (
                Rank(bool(row["flipped"]), float(row["distance"]), draw(str(row["id"]), int(row["row"]))),
                {key: value for key, value in row.items() if key not in {"flipped", "distance"}},
            )
            for row in said
        )
        return found

    def _keep(self, rows: Iterable[tuple[Rank, dict[str, Any]]]) -> None:
        self.rows = sorted(rows, key=lambda row: row[0], reverse=True)[:MAX_ROWS]


def draw(id: str, row: int) -> int:
    """Chance that is the same in every process."""
    return crc32(f"{id}/{row}".encode("utf-8", "replace"))


def said_row(tensors: Tensors, row: int, rows: int) -> dict[str, Any]:
    """One row of every tensor as short plain values; what is too long ends in "..."."""
    found: dict[str, Any] = {}
    left = MAX_VALUES
    for name, array in tensors.items():
        if left <= 0:
            found["..."] = f"{len(tensors) - len(found)} more"
            break
        values, more = _values(array, row, rows, left)
        left -= len(values)
        found[name] = values if more or len(values) != 1 else values[0]
        if more:
            found[name] = [*values, f"... {more} more"]
    return found


def _values(array: Array, row: int, rows: int, most: int) -> tuple[list[Any], int]:
    """The values of one row, or of the whole where the first axis is not the row; and how many are left out."""
    part = array[row : row + 1] if array.ndim and array.shape[0] == rows else array
    return [_plain(value) for value in part.reshape(-1)[:most].tolist()], max(0, part.size - most)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value if len(value) <= MAX_LENGTH else value[:MAX_LENGTH] + "..."
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, bool | int | float) else str(value)[:MAX_LENGTH]
