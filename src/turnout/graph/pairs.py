"""What two versions answered to the same requests: counted where they answer, added up where somebody looks."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from turnout.core.errors import Failure, InvalidInput
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.signature import Signature
from turnout.graph.difference import OTHER, Difference, Rows
from turnout.graph.request_value import KINDS, Column, Read, read
from turnout.graph.sketch import Sketch, added
from turnout.graph.worst import Rank, Worst, draw, said_row

#: Segments that are told apart; what is beyond goes under one name, as what has no value goes under another.
MAX_SEGMENTS = 50
NOTHING = "(none)"
#: Of one request, so many rows are compared, and fewer if they are wide: others wait meanwhile.
_MAX_ROWS, _MAX_VALUES = 256, 65_536
_MAX_KINDS = 20
#: The distance of rows of which one has no finite number: no part of a sum.
_ODD = sys.float_info.max


class SegmentPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What rows are told apart by: exactly one of a header, a cookie, an argument of the URL or an input column."""

    header: str = ""
    cookie: str = ""
    query: str = ""
    column: str = ""

    def __post_init__(self) -> None:
        given = [kind for kind in KINDS if getattr(self, kind)]
        if len(given) != 1:
            raise InvalidInput(
                "not one segment",
                field="segment",
                expected="exactly one of header, cookie, query, column",
                got=", ".join(given) or "none",
                example="segment: {column: country}",
            )


class PairPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How two answers are compared.

    Numbers agree that differ by at most `tolerance + relative * |primary|`. outputs: those that count; all that both
    have, if empty. segment: what rows are told apart by. inputs: whether the inputs of the worst rows are kept.
    """

    tolerance: float = 1e-6
    relative: float = 1e-5
    outputs: Sequence[str] = ()
    segment: SegmentPolicy | None = None
    inputs: bool = True

    def __post_init__(self) -> None:
        for name in ("tolerance", "relative"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise InvalidInput("not a tolerance", field=name, expected="0 or more", got=str(getattr(self, name)))


class Pair(NamedTuple):
    """What became of one request at both versions, and in how many seconds each."""

    request: InferRequest
    id: str
    primary: InferResponse | BaseException
    primary_seconds: float
    shadow: InferResponse | BaseException
    shadow_seconds: float


class Comparison:
    """A policy made ready: adds pairs to what is known of them."""

    def __init__(self, policy: PairPolicy, signature: Signature | None = None) -> None:
        """Raises InvalidInput for a segment by a column that the signature has not."""
        self._policy = policy
        self._column: Column | None = None
        self._read: Read | None = None
        if (segment := policy.segment) is not None:
            kind = next(kind for kind in KINDS if getattr(segment, kind))
            if kind == "column":
                self._column = Column(segment.column, signature)
            else:
                self._read = read(kind, getattr(segment, kind), signature)

    def add(self, pairs: Pairs, pair: Pair) -> None:
        """Compares both answers, or counts the failures that there are instead."""
        primary, shadow = pair.primary, pair.shadow
        if isinstance(primary, BaseException) or isinstance(shadow, BaseException):
            pairs.add_failures(*(_kind(side) for side in (primary, shadow)))
            return
        pairs.add_seconds(pair.primary_seconds, pair.shadow_seconds)
        rows = pair.request.rows
        for array in primary.outputs.values():
            rows = min(rows, max(1, _MAX_VALUES * pair.request.rows // max(1, array.size)))
        rows = min(rows, _MAX_ROWS)
        found = self._compare(pairs, primary, shadow, rows)
        if found is None:
            return
        pairs.add_rows(found, self._segments(pair.request, rows))
        if not found.agreed.all() or found.distance.any():
            self._keep_worst(pairs.worst, pair, primary, shadow, found)

    def _compare(self, pairs: Pairs, primary: InferResponse, shadow: InferResponse, rows: int) -> Rows | None:
        """All outputs that both have, together: a row agrees where all of them do; None where there are none."""
        policy = self._policy
        wanted = policy.outputs or primary.outputs
        found: Rows | None = None
        for name in wanted:
            one, other = primary.outputs.get(name), shadow.outputs.get(name)
            if one is None or other is None:
                pairs.missing.add(name)
                continue
            known = pairs.outputs.setdefault(name, Difference())
            part = known.add(one, other, rows, policy.tolerance, policy.relative)
            found = (
                part
                if found is None
                else Rows(
                    found.agreed & part.agreed, found.flipped | part.flipped, np.maximum(found.distance, part.distance)
                )
            )
        if not policy.outputs:
            pairs.missing.update(shadow.outputs.keys() - primary.outputs.keys())
        return found

    def _segments(self, request: InferRequest, rows: int) -> Sequence[str | None]:
        if self._column is not None:
            return self._column.each(request.inputs, rows)
        return [self._read(request)] * rows if self._read is not None else ()

    def _keep_worst(self, worst: Worst, pair: Pair, primary: InferResponse, shadow: InferResponse, found: Rows) -> None:
        rows = pair.request.rows
        differs = (~found.agreed | (found.distance > 0)).nonzero()[0].tolist()
        for row in differs:
            rank = Rank(bool(found.flipped[row]), float(found.distance[row]), draw(pair.id, row))
            if worst.would_take(rank):
                said = {"id": pair.id, "row": row}
                said |= {
                    "primary": said_row(primary.outputs, row, rows),
                    "shadow": said_row(shadow.outputs, row, rows),
                }
                if self._policy.inputs:
                    said["inputs"] = said_row(pair.request.inputs, row, rows)
                worst.add(rank, said)


class Pairs:
    """All pairs of one primary version and one shadow version.

    requests: both answered. rows: of those, compared; agreed: rows in which all outputs agree; flipped: rows with
    another class, or whose answers cannot be compared. failed: how many requests failed with what, by who failed.
    missing: outputs that only one has. ratio: number, sum and sum of squares of the logarithm of shadow's seconds by
    primary's. segments: rows, agreed rows and the sum of the distances, by segment.
    """

    __slots__ = (
        *("agreed", "failed", "flipped", "missing", "outputs", "primary_seconds", "ratio", "requests", "rows"),
        *("segments", "shadow_seconds", "worst"),
    )

    def __init__(self) -> None:
        self.requests = self.rows = self.agreed = self.flipped = 0
        self.failed: dict[str, dict[str, int]] = {"primary": {}, "shadow": {}, "both": {}}
        self.outputs: dict[str, Difference] = {}
        self.missing: set[str] = set()
        self.segments: dict[str, tuple[int, int, float]] = {}
        self.primary_seconds, self.shadow_seconds = Sketch(), Sketch()
        self.ratio = (0, 0.0, 0.0)
        self.worst = Worst()

    def add_seconds(self, primary: float, shadow: float) -> None:
        """Counts a request that both answered."""
        self.requests += 1
        self.primary_seconds.add(primary)
        self.shadow_seconds.add(shadow)
        ratio = math.log(max(shadow, 1e-9) / max(primary, 1e-9))
        count, total, squares = self.ratio
        self.ratio = (count + 1, total + ratio, squares + ratio * ratio)

    def add_failures(self, primary: str, shadow: str) -> None:
        """Counts a request that one of them failed, or both; "" is who answered."""
        who = "both" if primary and shadow else "primary" if primary else "shadow"
        kinds = self.failed[who]
        kind = primary or shadow
        kind = kind if kind in kinds or len(kinds) < _MAX_KINDS else OTHER
        kinds[kind] = kinds.get(kind, 0) + 1

    def add_rows(self, found: Rows, segments: Sequence[str | None]) -> None:
        """Counts rows and, where there are any, their segments."""
        self.rows += len(found.agreed)
        self.agreed += int(found.agreed.sum())
        self.flipped += int(found.flipped.sum())
        for name, agreed, distance in zip(segments, found.agreed.tolist(), found.distance.tolist(), strict=False):
            key = NOTHING if name is None else name[:64]
            if key not in self.segments and len(self.segments) >= MAX_SEGMENTS:
                key = OTHER
            rows, agreeing, total = self.segments.get(key, (0, 0, 0.0))
            apart = distance if distance < _ODD else 0.0
            self.segments[key] = (rows + 1, agreeing + agreed, min(total + apart, _ODD))

    def plus(self, other: Pairs) -> Pairs:
        """Both together, as of two routers."""
        found = Pairs()
        for name in ("requests", "rows", "agreed", "flipped"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        found.failed = {who: added(self.failed[who], other.failed[who]) for who in self.failed}
        nothing = Difference()
        for name in sorted({*self.outputs, *other.outputs}):
            found.outputs[name] = self.outputs.get(name, nothing).plus(other.outputs.get(name, nothing))
        found.missing = self.missing | other.missing
        found.segments = _joined(self.segments, other.segments)
        found.primary_seconds = self.primary_seconds.plus(other.primary_seconds)
        found.shadow_seconds = self.shadow_seconds.plus(other.shadow_seconds)
        mine, theirs = self.ratio, other.ratio
        found.ratio = (mine[0] + theirs[0], mine[1] + theirs[1], mine[2] + theirs[2])
        found.worst = self.worst.plus(other.worst)
        return found

    def to_json(self, *, inputs: bool = True) -> dict[str, Any]:
        """As plain JSON values. Without `inputs` neither what was asked nor the segments, which are made of it."""
        return {
            **{name: getattr(self, name) for name in ("requests", "rows", "agreed", "flipped")},
            "failed": self.failed,
            "outputs": {name: one.to_json() for name, one in self.outputs.items()},
            "missing": sorted(self.missing),
            "segments": {name: list(counts) for name, counts in self.segments.items()} if inputs else {},
            "primary_seconds": self.primary_seconds.to_json(),
            "shadow_seconds": self.shadow_seconds.to_json(),
            "ratio": list(self.ratio),
            "worst": self.worst.to_json(inputs=inputs),
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Pairs:
        """The reverse of `to_json`."""
        found = cls()
        for name in ("requests", "rows", "agreed", "flipped"):
            setattr(found, name, int(said[name]))
        for who, kinds in said["failed"].items():
            found.failed[who] = {str(kind): int(count) for kind, count in kinds.items()}
        found.outputs = {str(name): Difference.from_json(one) for name, one in said["outputs"].items()}
        found.missing = set(said["missing"])
        found.segments = {str(name): (int(a), int(b), float(c)) for name, (a, b, c) in said["segments"].items()}
        found.primary_seconds = Sketch.from_json(said["primary_seconds"])
        found.shadow_seconds = Sketch.from_json(said["shadow_seconds"])
        count, total, squares = said["ratio"]
        found.ratio = (int(count), float(total), float(squares))
        found.worst = Worst.from_json(said["worst"])
        return found


def _joined(
    one: Mapping[str, tuple[int, int, float]], other: Mapping[str, tuple[int, int, float]]
) -> dict[str, tuple[int, int, float]]:
    """Segments of both; of too many, those with the most rows stay."""
    both = dict(one)
    for name, (rows, agreed, total) in other.items():
        had = both.get(name, (0, 0, 0.0))
        both[name] = (had[0] + rows, had[1] + agreed, had[2] + total)
    names = sorted(both, key=lambda name: (name == OTHER, -both[name][0], name))
    found = {name: both[name] for name in names[:MAX_SEGMENTS]}
    for name in names[MAX_SEGMENTS:]:
        had, more = found.get(OTHER, (0, 0, 0.0)), both[name]
        found[OTHER] = (had[0] + more[0], had[1] + more[1], had[2] + more[2])
    return found


def _kind(side: InferResponse | BaseException) -> str:
    """The name of a failure; "" of an answer. What is no failure of ours is a fault of the model's."""
    if not isinstance(side, BaseException):
        return ""
    return type(side).__name__ if isinstance(side, Failure) else "ModelFailed"
