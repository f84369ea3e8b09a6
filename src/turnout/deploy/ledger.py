"""Whether what is wanted fits in memory: by what versions took when they ran, and by an estimate where none has yet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from turnout.core.errors import InvalidInput
from turnout.deploy.memory_limit import Limit, shown_bytes
from turnout.deploy.trees import write_durably

_MIB = 1 << 20
#: What a worker takes before it has a model: the interpreter with numpy, and with the library of the format.
_WORKER_BYTES = 64 * _MIB
_LIBRARY_BYTES = {
    "onnx": 40 * _MIB, "openvino": 100 * _MIB, "treelite": 60 * _MIB, "tvm": 100 * _MIB, "python": 0,
    "catboost": 120 * _MIB, "lightgbm": 180 * _MIB, "sklearn": 180 * _MIB, "statsmodels": 200 * _MIB,
    "xgboost": 180 * _MIB, "mlflow": 250 * _MIB, "jax": 250 * _MIB, "mxnet": 250 * _MIB, "h2o": 400 * _MIB,
    "pmml": 400 * _MIB, "torch": 480 * _MIB, "safetensors": 480 * _MIB, "transformers": 600 * _MIB,
    "keras": 600 * _MIB, "tensorflow": 600 * _MIB, "spark": 800 * _MIB,
}  # fmt: skip
_LIBRARY = 200 * _MIB
#: How much more a model is in memory than on disk.
_FACTORS = {
    "onnx": 1.5, "openvino": 1.5, "torch": 1.5, "safetensors": 1.5, "transformers": 1.5, "tensorflow": 2.0,
    "keras": 2.0, "sklearn": 2.5, "xgboost": 3.0, "lightgbm": 3.0, "catboost": 3.0,
}  # fmt: skip
_FACTOR = 2.0
_VERDICTS = {True: "fits", False: "does NOT fit", None: "may not fit"}
#: So many versions are remembered; who was not seen for longest is forgotten first.
MAX_REMEMBERED = 10_000


class Need(NamedTuple):
    """What one version takes, and how that is known. nbytes: of all its replicas together; None where nobody knows."""

    name: str
    nbytes: int | None
    replicas: int = 1
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """The judgement. now, after, peak: bytes before, after and while it is done. unknown: whose size nobody knows.

    fits: None where that is not known, because of them.
    """

    fits: bool | None
    now: int
    after: int
    peak: int
    limit: Limit
    notes: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises InvalidInput where it does not fit."""
        if self.fits is False:
            raise InvalidInput(
                "does not fit in memory",
                field="server.memory_limit",
                expected=f"at most {shown_bytes(self.limit.nbytes)}",
                got=f"{shown_bytes(self.peak)}: {' '.join(note.strip() for note in self.notes[1:])}",
                example="fewer replicas, fewer versions, or swap: resources for models that may pause",
            )


@dataclass
class Ledger:
    """What one worker of a version took, by what tells its content (its digest, or what it was pinned to)."""

    measured: dict[str, int] = field(default_factory=dict)

    def record(self, keys: Iterable[str], nbytes: int) -> bool:
        """A worker took so much; the most that was ever seen counts. Whether that is news."""
        news = False
        for key in keys:
            if key and nbytes > 0:
                before = self.measured.pop(key, 0)
                self.measured[key] = max(before, nbytes)
                news = news or before < nbytes * 0.95
        while len(self.measured) > MAX_REMEMBERED:
            del self.measured[next(iter(self.measured))]
        return news

    def need(
        self, name: str, keys: Iterable[str], *, replicas: int = 1, artifact_bytes: int | None = None,
        format: str = "", inline: bool = False,
    ) -> Need:  # fmt: skip
        """What a version will take. artifact_bytes: of its files, None where nobody knows. inline: in each router."""
        for key in keys:
            if key in self.measured:
                return Need(name, self.measured[key] * replicas, replicas, measured=True)
        if artifact_bytes is None:
            return Need(name, None, replicas)
        return Need(name, estimate(format, artifact_bytes, inline=inline) * replicas, replicas)

    def to_json(self) -> dict[str, int]:
        """As JSON values."""
        return dict(self.measured)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Ledger:
        """From the form of `to_json`; what is none is left out."""
        return cls({str(key): value for key, value in found.items() if type(value) is int and value > 0})


def estimate(format: str, artifact_bytes: int, *, inline: bool = False) -> int:
    """What one worker will take, in bytes, told by the size of its files. A guess, on the large side."""
    model = int(artifact_bytes * _FACTORS.get(format, _FACTOR))
    library = _LIBRARY_BYTES.get(format, _LIBRARY)
    return model + library + (0 if inline else _WORKER_BYTES)


def judge(
    now: Sequence[Need], wanted: Sequence[Need], limit: Limit, *, kept: Sequence[Need] = (), rest: int = 0,
    pauses: bool = False,
) -> Fit:  # fmt: skip
    """Whether it fits, while it is changed and after that.

    now: what is loaded; wanted: what shall be; both by the names that tell versions apart. kept: of what is loaded,
    what stays so for an instant return. rest: what else this server takes (routers and controller). pauses: what goes
    is unloaded before what comes is loaded.
    """
    there = {need.name for need in now}
    goal = {need.name for need in wanted}
    comes = [need for need in wanted if need.name not in there]
    stays = {need.name for need in kept} - goal
    goes = [need for need in now if need.name not in goal and need.name not in stays]
    before = rest + sum(need.nbytes or 0 for need in now)
    coming = sum(need.nbytes or 0 for need in comes)
    going = sum(need.nbytes or 0 for need in goes)
    after = before + coming - going
    peak = max(before, after) if pauses else before + coming
    unknown = tuple(need.name for need in comes if need.nbytes is None)
    fits = False if peak > limit.nbytes else None if unknown else True
    fit = Fit(fits, before, after, peak, limit, (), unknown)
    if not comes and not goes:
        return fit
    notes = [f"memory: {_VERDICTS[fits]}: {shown_bytes(peak)} at most, of {shown_bytes(limit.nbytes)} ({limit.why})"]
    notes.append(f"  now {shown_bytes(before)}, of which {shown_bytes(rest)} are the server's own")
    notes += [f"  + {need.name}: {_amount(need)}" for need in comes]
    notes += [f"  - {need.name}: {_amount(need)}" for need in goes]
    if stays:
        notes.append(f"  kept for an instant return: {', '.join(sorted(stays))}")
    how = "what goes is unloaded first" if pauses else "what goes is unloaded when what comes is ready"
    notes.append(f"  = {shown_bytes(peak)} at most, as {how}; {shown_bytes(after)} after that")
    return replace(fit, notes=tuple(notes))


def _amount(need: Need) -> str:
    if need.nbytes is None:
        return "nobody knows how much before it is fetched"
    how = "measured" if need.measured else "an estimate"
    times = f", {need.replicas} replicas" if need.replicas > 1 else ""
    return f"{shown_bytes(need.nbytes)} ({how}{times})"


def read_ledger(path: Path) -> Ledger:
    """The ledger that is kept in a file; an empty one where there is none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return Ledger()
    return Ledger.from_json(found) if isinstance(found, dict) else Ledger()


def keep_ledger(ledger: Ledger, path: Path) -> None:
    """Writes it down, so that there is the old one or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, ledger.to_json())
