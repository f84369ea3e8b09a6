"""What a maker keeps of a case, and how it is read again: an artifact, rows, and the framework's own answers for them.

Makers run inside a framework's environment, where there is neither pytest nor this project's other tests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from turnout.testing.formats import Tolerance, assert_same

ROWS = 1000


class Keep:
    """Collects the cases of one maker in a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cases: list[dict[str, Any]] = []

    def __call__(
        self,
        name: str,
        artifact: str,
        *,
        format: str,
        rows: dict[str, np.ndarray],
        expected: dict[str, np.ndarray],
        tolerance: tuple[float, float] = (0.0, 0.0),
        split: tuple[float, float] | None = None,
        served: bool = False,
        **facts: Any,
    ) -> None:
        """One case. `artifact` is a path in the folder; `split` is how far a row alone may be from one in a batch.

        `served`: whether a server is asked for it, too. facts: what `inside.py` takes besides.
        """
        np.savez(self.folder / f"{name}.rows.npz", **{key: storable(value) for key, value in rows.items()})
        np.savez(self.folder / f"{name}.expected.npz", **{key: storable(value) for key, value in expected.items()})
        case = {"name": name, "artifact": artifact, "format": format, "tolerance": tolerance, "served": served}
        self.cases.append({**case, "split": split or tolerance, **facts})
        (self.folder / "cases.json").write_text(json.dumps(self.cases, indent=1))


def storable(array: np.ndarray) -> np.ndarray:
    """Text and bytes as fixed-width bytes: what is kept needs no pickle."""
    array = np.asarray(array)
    if array.dtype.kind in "OU":
        return np.array([v.encode() if isinstance(v, str) else v for v in array.ravel()], dtype="S").reshape(
            array.shape
        )
    return array


def check(case: dict[str, Any], name: str, got: np.ndarray, want: np.ndarray, tolerance: Tolerance) -> None:
    """The answer is the framework's. In outputs that are JSON (`json` of the case), numbers may be 0.0002 off."""
    if name not in case.get("json", ()):
        assert_same(got, want, tolerance, f"{case['name']}: {name}")
        return
    assert got.shape == want.shape
    for mine, theirs in zip(map(json.loads, got), map(json.loads, want), strict=True):
        assert [{**one, "score": 0} for one in mine] == [{**one, "score": 0} for one in theirs]
        assert np.allclose([one["score"] for one in mine], [one["score"] for one in theirs], atol=2e-4)


def cases(folder: Path) -> list[dict[str, Any]]:
    """What the maker kept."""
    return json.loads((folder / "cases.json").read_text())


def arrays(folder: Path, case: dict[str, Any], which: str) -> dict[str, np.ndarray]:
    """The rows or the expected answers of a case, BYTES as objects again."""
    with np.load(folder / f"{case['name']}.{which}.npz") as kept:
        return {name: kept[name].astype(object) if kept[name].dtype.kind == "S" else kept[name] for name in kept.files}
