"""What is measured: a cell is one model, a number of rows, a way in and a number of callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["json", "binary", "grpc"]


@dataclass(frozen=True)
class Cell:
    """One closed-loop measurement: `callers` connections (HTTP) or streams of one connection (gRPC)."""

    model: str
    rows: int
    kind: Kind
    callers: int

    @property
    def name(self) -> str:
        """As in `--cells`: tiny-json-64, mlp32-json-8, mlp1000-binary-8 ..."""
        return f"{self.model}{'' if self.rows == 1 else self.rows}-{self.kind}-{self.callers}"

    @property
    def title(self) -> str:
        """For a reader."""
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        way = {"json": "REST, JSON", "binary": "REST, binary tensors", "grpc": "gRPC"}[self.kind]
        who = "stream" if self.kind == "grpc" else "connection"
        return f"{self.model}, {rows}, {way}, {self.callers} {who}{'' if self.callers == 1 else 's'}"


@dataclass(frozen=True)
class Overload:
    """Open loop at `factor` times what the server did in `capacity`.

    An answer counts within `objective` seconds, the deadline that each request says; callers hang up after `give_up`.
    """

    capacity: Cell
    factor: int
    objective: float = 0.1
    give_up: float = 1.0

    @property
    def name(self) -> str:
        """As in `--cells`: mlp-json-open-2x ..."""
        return f"{self.capacity.model}-{self.capacity.kind}-open-{self.factor}x"

    @property
    def title(self) -> str:
        """For a reader."""
        way = "gRPC" if self.capacity.kind == "grpc" else "JSON"
        wait = f"an answer counts within {self.objective * 1000:.0f} ms"
        return f"{self.capacity.model}, 1 row, {way}, open loop at {self.factor}x capacity, {wait}"


CELLS: tuple[Cell, ...] = (
    Cell("tiny", 1, "json", 1),
    Cell("tiny", 1, "json", 8),
    Cell("tiny", 1, "json", 64),
    Cell("mlp", 1, "json", 1),
    Cell("mlp", 1, "json", 8),
    Cell("mlp", 1, "json", 64),
    Cell("mlp", 32, "json", 8),
    Cell("mlp", 1000, "binary", 8),
    Cell("heavy", 1, "json", 1),
    Cell("heavy", 1, "json", 8),
    Cell("forest", 1, "json", 1),
    Cell("forest", 1, "json", 8),
    Cell("forest", 1, "json", 64),
    Cell("tiny", 1, "grpc", 1),
    Cell("tiny", 1, "grpc", 8),
    Cell("tiny", 1, "grpc", 64),
    Cell("mlp", 1, "grpc", 64),
    Cell("mlp", 1000, "grpc", 8),
    Cell("heavy", 1, "grpc", 8),
)
QUICK = ("tiny-json-1", "tiny-json-64", "mlp-json-1", "mlp-json-64", "mlp32-json-8", "mlp1000-binary-8", "heavy-json-8",
         "tiny-grpc-64", "mlp-grpc-64", "mlp-json-open-2x", "heavy-json-open-2x", "heavy-json-open-4x")  # fmt: skip

_TINY, _MLP, _HEAVY = (cell for cell in CELLS if cell.name in ("tiny-json-64", "mlp-json-64", "heavy-json-8"))
OVERLOADS: tuple[Overload, ...] = (
    Overload(_TINY, 2),
    Overload(_MLP, 2),
    Overload(_MLP, 4),
    Overload(_HEAVY, 2),
    Overload(_HEAVY, 4),
)


def choose(names: list[str] | None, *, quick: bool) -> tuple[list[Cell], list[Overload]]:
    """The cells asked for; an overload brings the cell that measures its capacity with it."""
    every = [cell.name for cell in CELLS] + [overload.name for overload in OVERLOADS]
    wanted = set(names or (QUICK if quick else every))
    unknown = wanted - set(every)
    if unknown:
        raise SystemExit(f"unknown cells: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    overloads = [overload for overload in OVERLOADS if overload.name in wanted]
    wanted |= {overload.capacity.name for overload in overloads}
    return [cell for cell in CELLS if cell.name in wanted], overloads
