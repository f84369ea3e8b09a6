"""Compiled models: an original and twins that were proved equal to it; the fastest one answers each batch.

A directory with `compiled.json`, as `turnout compile` makes it. What never answers is not loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors
from turnout.formats import compiled_file
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.compiled_file import FILE, NATIVE, REFUSE, Compiled, Guard
from turnout.formats.onnx import Onnx

logger = logging.getLogger("turnout")
#: How an original is loaded, whatever its format.
Load = Callable[[Artifact, LoadOptions], Model]
Predict = Callable[[Tensors], Tensors]


class CompiledFormat:
    """The format of what `turnout compile` makes."""

    name = "compiled"
    extra = "onnx"
    suffixes = ()

    def __init__(self, load: Load) -> None:
        self._load = load

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the directory holds a `compiled.json`."""
        return artifact.is_directory and FILE in artifact.listing

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The twins, and the original where it may have to answer. Every file that is loaded has its digest."""
        directory = artifact.file
        compiled = compiled_file.read(directory)
        if options.signature is not None and options.signature.to_json()["inputs"] != [
            spec.to_json() for spec in compiled.signature.inputs
        ]:
            raise LoadFailed(
                f"{artifact.label} was compiled for its own signature; give the other one to turnout compile"
            )
        _say_where_measured(artifact, compiled, options.threads)
        variants: dict[str, Predict] = {}
        used = {name for _, name in compiled.table()}
        for twin in compiled.twins:
            if twin.name in used:
                compiled_file.check_files(directory, compiled, [twin.file])
                threads = max(twin.threads, options.threads)
                loaded = Onnx().load(Artifact.of(directory / twin.file), LoadOptions(threads=threads))
                _check_same(artifact, compiled.signature, loaded.signature)
                variants[twin.name] = loaded.predict
        if compiled.needs_original:
            compiled_file.check_files(directory, compiled, [compiled.original])
            chosen = LoadOptions(
                options.trust_pickle, compiled.signature, threads=options.threads, format=compiled.original_format
            )
            variants[compiled.original_format] = self._load(Artifact.of(directory / compiled.original), chosen).predict
        return CompiledModel(compiled, variants)


class CompiledModel:
    """Several models that answer alike, of which `choose` picks one for each batch."""

    __slots__ = ("_checks", "_inputs", "_limit", "_native", "_only", "_table", "_variants", "signature")

    def __init__(self, compiled: Compiled, variants: Mapping[str, Predict]) -> None:
        self.signature = compiled.signature
        self._variants = dict(variants)
        self._native = compiled.original_format
        table = [(bound, name, variants[name]) for bound, name in compiled.table()]
        self._table = table
        self._only = (table[0][1], table[0][2]) if len(table) == 1 else None
        self._checks = [check_of(guard, compiled.signature) for guard in compiled.guards]
        self._inputs = len(compiled.signature.inputs)
        self._limit = compiled.signature.rows_limit

    @property
    def variants(self) -> Sequence[str]:
        """The names of what may answer, as they stand in responses."""
        return tuple(self._variants)

    @property
    def answered_by(self) -> str:
        """What answers how many rows, for people: "onnx up to 512 rows, sklearn above"."""
        *small, (_, last, _) = self._table
        return ", ".join(
            [*(f"{name} up to {int(bound)} rows" for bound, name, _ in small), f"{last} above" if small else last]
        )

    def choose(self, inputs: Tensors) -> tuple[str, Predict]:
        """What answers these inputs, by name: the fastest for so many rows, or the original where no twin is proved.

        Raises InvalidInput for values that the original refuses.
        """
        for check in self._checks:
            if check(inputs):
                return self._native, self._variants[self._native]
        if len(inputs) != self._inputs:
            return self._native, self._variants[self._native]
        if self._only is not None:
            return self._only
        rows = self._limit or next(iter(inputs.values())).shape[0]
        for bound, name, predict in self._table:
            if rows <= bound:
                return name, predict
        return self._table[-1][1:]

    def predict(self, inputs: Tensors) -> Tensors:
        """The outputs of whatever `choose` says."""
        return self.choose(inputs)[1](inputs)


def check_of(guard: Guard, signature: Signature) -> Callable[[Tensors], bool]:
    """A function that says whether the original has to answer, and raises InvalidInput for what it would refuse."""
    spec = signature.input(guard.input)
    if spec is not None and spec.datatype == "BYTES":
        known = frozenset(text.encode() for text in guard.known)
        return lambda inputs: _unseen(guard, known, inputs.get(guard.input))
    # One product says of nearly every batch that all its numbers are finite and small: a microsecond.
    usual = min(guard.limit, 1e150 if spec is None or spec.datatype == "FP64" else 1e18) ** 2

    def check(inputs: Tensors) -> bool:
        array = inputs.get(guard.input)
        if array is None:
            return False
        flat = array.reshape(-1)
        if flat.dtype.kind == "f" and flat.dtype.itemsize > 2 and np.vdot(flat, flat) < usual:
            return False
        return _odd(guard, array)

    return check


def _odd(guard: Guard, array: Array) -> bool:
    """The exact check, for a batch with some number that is not small."""
    if array.dtype.kind not in "fiu":
        return False
    told = False
    if guard.nan and array.dtype.kind == "f" and np.isnan(_chosen(array, guard.nan_columns)).any():
        told |= _act(guard, guard.nan, "the model takes no missing values", "NaN")
    if guard.inf and array.dtype.kind == "f" and np.isinf(_chosen(array, guard.inf_columns)).any():
        told |= _act(guard, guard.inf, "the model takes no infinite values", "inf")
    if guard.above:
        wide = array.astype(np.float64, copy=False)
        if (np.isfinite(wide) & (np.abs(wide) > guard.limit)).any():
            told |= _act(guard, guard.above, "the model takes no numbers so large", f"more than {guard.limit:g}")
    return told


def _chosen(array: Array, columns: tuple[int, ...]) -> Array:
    return array.reshape(array.shape[0], -1)[:, list(columns)] if columns else array


def _unseen(guard: Guard, known: frozenset[bytes], array: Array | None) -> bool:
    if array is None:
        return False
    for value in array.ravel().tolist():
        if value not in known:
            text = repr(value.decode(errors="replace") if isinstance(value, bytes) else value)[:100]
            return _act(guard, guard.unseen, "a value is none of those the model was fitted on", text)
    return False


def _act(guard: Guard, action: str, reason: str, got: str) -> bool:
    if action == REFUSE:
        raise InvalidInput(reason, field=f"inputs.{guard.input}", got=got)
    return action == NATIVE


def _check_same(artifact: Artifact, wanted: Signature, found: Signature) -> None:
    """Raises LoadFailed unless a twin takes and gives the tensors of the signature, by name and type."""
    for mine, its in ((wanted.inputs, found.inputs), (wanted.outputs, found.outputs)):
        if {spec.name: spec.datatype for spec in mine} != {spec.name: spec.datatype for spec in its}:
            raise LoadFailed(f"{artifact.label}: the twin's signature is not the model's; compile the model again")


def _say_where_measured(artifact: Artifact, compiled: Compiled, threads: int) -> None:
    here = compiled_file.this_machine()
    if compiled.machine and (dict(compiled.machine) != here or compiled.threads != threads):
        logger.warning(
            "%s was measured on %s (%s cores, %s threads), this is %s (%s cores, %s threads): its answers are as "
            "proved, but which engine is the fastest may differ; compile it again here",
            artifact.label,
            compiled.machine.get("cpu"),
            compiled.machine.get("cores"),
            compiled.threads,
            here["cpu"],
            here["cores"],
            threads,
        )
