"""The structure of a treelite checkpoint, walked before treelite reads it: its own reader trusts every number."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.tensors import Array

#: Task types by their number.
TASKS = ("binary", "regressor", "multiclass", "rank", "isolation_forest")
_REALS: dict[int, np.dtype[Any]] = {2: np.dtype("<f4"), 3: np.dtype("<f8")}
_LEAF, _NUMBERS, _CATEGORIES = 0, 1, 2
_I4, _U4, _U8, _BYTE = np.dtype("<i4"), np.dtype("<u4"), np.dtype("<u8"), np.dtype("i1")
_MAJOR = 4


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself: `classes` has one number a target."""

    version: tuple[int, int, int]
    datatype: str
    trees: int
    features: int
    task: str
    classes: tuple[int, ...]
    postprocessor: str


class _Walk:
    """Reads one thing after the other; raises ValueError where the file ends too early."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.at = 0

    def scalars(self, layout: str) -> tuple[Any, ...]:
        try:
            found = struct.unpack_from("<" + layout, self._data, self.at)
        except struct.error:
            raise ValueError(f"it ends at byte {len(self._data)}, in the middle of a number") from None
        self.at += struct.calcsize("<" + layout)
        return found

    def array(self, dtype: np.dtype[Any]) -> Array:
        (count,) = self.scalars("Q")
        if count * dtype.itemsize > len(self._data) - self.at:
            raise ValueError(f"at byte {self.at} it claims {count} elements, more than are left")
        found = np.frombuffer(self._data[self.at : self.at + count * dtype.itemsize], dtype=dtype)
        self.at += count * dtype.itemsize
        return found

    def nothing_more(self) -> None:
        """The place of fields that no version of treelite has written yet."""
        if self.scalars("i") != (0,):
            raise ValueError("it has fields of a later treelite")


def looks_like_treelite(head: bytes) -> bool:
    """Whether a file starts as a checkpoint of treelite 3.9 or 4 does."""
    if len(head) < 26:
        return False
    major, minor, patch, threshold, leaf, trees, features = struct.unpack_from("<iiiBBQi", head)
    if not (3 <= major <= 9 and 0 <= minor < 100 and 0 <= patch < 100 and threshold in {2, 3} and leaf in {1, 2, 3}):
        return False
    return bool(0 < trees < 1 << 32 and features > 0)


def check_checkpoint(path: Path) -> Header:
    """The header of a checkpoint that is whole. Raises LoadFailed where a branch leads nowhere, or the file ends."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk = _Walk(data)
        try:
            header, leaf_size, real = _header(walk, path.name)
            for number in range(header.trees):
                _check_tree(walk, number, header.features, leaf_size, real)
            if walk.at != len(data):
                raise ValueError(f"{len(data) - walk.at} bytes are left over")
        except ValueError as problem:
            raise LoadFailed(f"{path.name}: the treelite checkpoint is cut off or damaged: {problem}") from None
    return header


def _header(walk: _Walk, label: str) -> tuple[Header, int, np.dtype[Any]]:
    version = walk.scalars("iii")
    if version[0] != _MAJOR:
        wrote = ".".join(map(str, version))
        raise LoadFailed(
            f"{label} is a checkpoint of treelite {wrote}; treelite {_MAJOR} is read here. Load it with a treelite "
            "that reads it, and serialize it again"
        )
    threshold, leaf, trees, features, task, _average = walk.scalars("BBQiBB")
    if threshold != leaf or threshold not in _REALS:
        raise ValueError(f"its numbers are of the types {threshold} and {leaf}")
    if task >= len(TASKS) or features <= 0:
        raise ValueError(f"its task is {task}, for {features} columns")
    (targets,) = walk.scalars("I")
    classes, leaf_shape = walk.array(_U4), walk.array(_U4)
    if targets == 0 or len(classes) != targets or len(leaf_shape) != 2 or not classes.all() or not leaf_shape.all():
        raise ValueError(f"it has {len(classes)} numbers of classes for {targets} targets")
    widest = int(classes.max())
    _check_owners(walk.array(_I4), trees, targets, "target")
    _check_owners(walk.array(_I4), trees, widest, "class")
    if int(leaf_shape[0]) not in {1, targets} or int(leaf_shape[1]) not in {1, widest}:
        raise ValueError(f"its leaves have the shape {leaf_shape.tolist()}")
    postprocessor = walk.array(_BYTE).tobytes().decode("ascii")
    walk.scalars("ff")
    if len(walk.array(_REALS[3])) != targets * widest:
        raise ValueError("its starting scores are not one for each class")
    walk.array(_BYTE)
    walk.nothing_more()
    real = _REALS[threshold]
    datatype = "FP32" if real.itemsize == 4 else "FP64"
    sizes = tuple(int(number) for number in classes)
    header = Header(version, datatype, trees, features, TASKS[task], sizes, postprocessor)
    return header, int(leaf_shape.prod()), real


def _check_owners(found: Array, trees: int, count: int, what: str) -> None:
    if len(found) != trees or (trees and not (found.min() >= -1 and found.max() < count)):
        raise ValueError(f"a tree belongs to a {what} that is not there")


def _check_tree(walk: _Walk, number: int, features: int, leaf_size: int, real: np.dtype[Any]) -> None:
    nodes, _has_categories = walk.scalars("iB")
    kinds, left, right, columns = walk.array(_BYTE), walk.array(_I4), walk.array(_I4), walk.array(_I4)
    rest = [walk.array(kind) for kind in (_BYTE, real, real, _BYTE, _BYTE)]
    if nodes <= 0 or any(len(array) != nodes for array in (kinds, left, right, columns, *rest)):
        raise ValueError(f"tree {number} has not one of everything for its {nodes} nodes")
    vectors, starts, ends = walk.array(real), walk.array(_U8), walk.array(_U8)
    categories, firsts, lasts = walk.array(_U4), walk.array(_U8), walk.array(_U8)
    for stored, begins, stops in ((vectors, starts, ends), (categories, firsts, lasts)):
        _check_slices(number, nodes, len(stored), begins, stops)
    inner = kinds != _LEAF
    if not np.isin(kinds, (_LEAF, _NUMBERS, _CATEGORIES)).all() or (left[~inner] != -1).any():
        raise ValueError(f"tree {number} has nodes of no known kind")
    children = np.concatenate([left[inner], right[inner]])
    if len(children) and (children.min() < 1 or children.max() >= nodes or len(np.unique(children)) != len(children)):
        raise ValueError(f"tree {number} has a branch that leads nowhere or back")
    if inner.any() and not (columns[inner].min() >= 0 and columns[inner].max() < features):
        raise ValueError(f"tree {number} looks at a column that is not there")
    if leaf_size > 1 and ((ends - starts)[~inner] != leaf_size).any():
        raise ValueError(f"tree {number} has a leaf without {leaf_size} values")
    if not ((rest[3] >= 0) & (rest[3] <= 5)).all():
        raise ValueError(f"tree {number} compares in no known way")
    for kind in (_U8, _BYTE, _REALS[3], _BYTE, _REALS[3], _BYTE):
        walk.array(kind)
    walk.nothing_more()
    walk.nothing_more()


def _check_slices(number: int, nodes: int, stored: int, begins: Array, stops: Array) -> None:
    if len(begins) != len(stops) or len(begins) not in {0, nodes}:
        raise ValueError(f"tree {number} has {len(begins)} lists for {nodes} nodes")
    if len(begins) and ((begins > stops).any() or int(stops.max()) > stored):
        raise ValueError(f"tree {number} has a list that ends after its last element")
