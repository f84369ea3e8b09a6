"""JAX functions, exported with `jax.export` and serialised: StableHLO, compiled here for this machine's CPU."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, canonical
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.declared import declared_inputs, example_of
from turnout.formats.graph_signatures import completed, datatype_of, has_rows, sizes
from turnout.formats.jax_content import check_whole, looks_like
from turnout.formats.quiet import quiet_import
from turnout.formats.refusals import library, loading, untrusted
from turnout.formats.signatures import example_rows

_KIND = "an exported JAX function"
INPUT, OUTPUT = "input", "output"
#: Calls that the program makes of itself, not of a library: checks of shapes, and marks for the compiler.
_HARMLESS = frozenset({"shape_assertion", "Sharding", "annotate_device_placement", "AllocateBuffer"})
_CALL = re.compile(r"custom_call\s+@([\w.$]+|\"[^\"]*\")")
_COMPILE_ROWS, _COMPILE_SECONDS = 64, 2.0
Run = Callable[[Sequence[Any]], Sequence[Any]]


class JaxExport:
    """The `jax.export` format."""

    name = "jax"
    extra = "jax"
    suffixes = (".jax", ".jax_export")

    def recognise(self, artifact: Artifact) -> bool:
        """Whether the file is a serialised `jax.export.Exported`."""
        return looks_like(artifact)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The function as a model. Raises LoadFailed for one exported for other machines than a CPU."""
        check_whole(artifact)
        jax = jax_library(f"{artifact.label} ({_KIND})", options.threads)
        with loading(artifact, _KIND):
            exported = library("jax.export", _KIND).deserialize(bytearray(artifact.file.read_bytes()))
            _check(exported, artifact, trusted=options.trust_pickle)
            return JaxModel(jax, exported, artifact, options)


def jax_library(what: str, threads: int) -> Any:
    """The library, on the CPU and with that many threads. Raises MissingExtra, saying that `what` needs it."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # no search for a GPU that is not used
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("NPROC", str(threads))  # how many the CPU client starts
    flags = os.environ.get("XLA_FLAGS", "")
    if threads == 1 and "multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    with quiet_import():
        library("flatbuffers", what)
        return library("jax", what)


def _check(exported: Any, artifact: Artifact, *, trusted: bool) -> None:
    if "cpu" not in exported.platforms:
        raise LoadFailed(
            f"{artifact.label} was exported for {', '.join(exported.platforms)}; this server runs it on the CPU. "
            "Export it with jax.export.export(function, platforms=['cpu', ...])"
        )
    if exported.nr_devices > 1:
        raise LoadFailed(f"{artifact.label} was exported for {exported.nr_devices} devices; export it for one")
    stable = library("jax._src.export._export", _KIND)
    allowed = _HARMLESS | set(getattr(stable, "_CUSTOM_CALL_TARGETS_GUARANTEED_STABLE", ()))
    called = {name.strip('"') for name in _CALL.findall(exported.mlir_module())}
    foreign = sorted(called - allowed)
    if foreign and not trusted:
        raise untrusted(
            f"{artifact.label} calls native code by name ({', '.join(foreign[:6])}), which a damaged or hostile file "
            "can abuse"
        )


class JaxModel:
    """Calls the function. Each number of rows is compiled anew, so rows are filled up to a power of two."""

    __slots__ = ("_free", "_names", "_run", "signature")

    def __init__(self, jax: Any, exported: Any, artifact: Artifact, options: LoadOptions) -> None:
        if any(str(aval.dtype) in {"float64", "int64", "uint64"} for aval in (*exported.in_avals, *exported.out_avals)):
            jax.config.update("jax_enable_x64", True)
        self._names = tuple(_output_names(jax, exported))
        self._run = _runner(jax, exported)
        self._free = False
        inputs = _inputs(jax, exported, artifact, options)
        what = f"{artifact.label}: the output"
        outputs = [
            TensorSpec(name, datatype_of(str(aval.dtype), f"{what} {name!r}"), sizes(aval.shape))
            for name, aval in zip(self._names, exported.out_avals, strict=True)
        ]
        firsts = {str(aval.shape[0]) if aval.shape else "" for aval in (*exported.in_avals, *exported.out_avals)}
        signature = Signature(inputs, (), batched=has_rows([*inputs, *outputs]) and len(firsts) == 1)
        if options.signature is not None:
            signature = replace(signature, batched=options.signature.batched, source="user")
        self.signature = signature
        self.signature = completed(signature, self.predict, outputs, example=example_of(artifact, options))
        self._free = self.signature.batched and self.signature.rows_limit is None
        if self._free:
            self._compile()

    def _compile(self) -> None:
        """Compiles the small batch sizes now, for as long as that is quick, and not while somebody waits."""
        until = time.monotonic() + _COMPILE_SECONDS
        rows = 1
        while rows <= _COMPILE_ROWS and time.monotonic() < until:
            try:
                self.predict(example_rows(self.signature.inputs, rows))
            except Exception:  # noqa: BLE001  zeros may be out of the function's domain: it compiles when it is called
                return
            rows *= 2

    def predict(self, inputs: Tensors) -> Tensors:
        """The function's outputs. Raises InvalidInput where its shapes do not allow the sizes."""
        arrays = [inputs[spec.name] for spec in self.signature.inputs]
        rows = len(arrays[0]) if self._free else 0
        full = 1 << (rows - 1).bit_length() if rows else 0
        if full > rows:
            try:
                answer = self._run([filled(array, full) for array in arrays])
            except ValueError:  # the function allows these rows, perhaps, and not so many
                answer = self._called(arrays)
        else:
            answer = self._called(arrays)
        return {
            name: canonical(np.asarray(value)[:rows] if rows else np.asarray(value))
            for name, value in zip(self._names, answer, strict=True)
        }

    def _called(self, arrays: Sequence[Array]) -> Sequence[Any]:
        try:
            return self._run(arrays)
        except ValueError as problem:
            raise InvalidInput("the model's function does not take these sizes", got=str(problem)[:200]) from problem


def filled(array: Array, rows: int) -> Array:
    """The array with its last row repeated, so that what is added is as valid as what came."""
    return np.concatenate([array, np.repeat(array[-1:], rows - len(array), axis=0)])


def _runner(jax: Any, exported: Any) -> Run:
    def call(*flat: Any) -> Any:
        arguments, keywords = jax.tree_util.tree_unflatten(exported.in_tree, flat)
        return jax.tree_util.tree_leaves(exported.call(*arguments, **keywords))

    compiled = jax.jit(call)
    return lambda arrays: jax.device_get(compiled(*arrays))


def _paths(jax: Any, tree: Any) -> list[list[Any]]:
    """For each leaf the keys that lead to it: numbers for tuples and lists, names for dicts."""
    whole = jax.tree_util.tree_unflatten(tree, range(tree.num_leaves))
    found, _ = jax.tree_util.tree_flatten_with_path(whole)
    return [[getattr(key, "key", getattr(key, "name", getattr(key, "idx", None))) for key in path] for path, _ in found]


def _named(paths: Sequence[Sequence[Any]], unnamed: str) -> list[str]:
    """Names for leaves: their keys joined by a dot; for those without, `unnamed`, numbered where there are several."""
    bare = [path for path in paths if not any(isinstance(key, str) for key in path)]
    names = []
    for path in paths:
        keys = [key for key in path if isinstance(key, str)]
        last = path[-1] if path else 0
        number = f"_{last}" if keys and isinstance(last, int) else ""
        names.append(
            ".".join(keys) + number if keys else unnamed if len(bare) == 1 else f"{unnamed}_{bare.index(path)}"
        )
    return names if len(set(names)) == len(names) else [f"{unnamed}_{at}" for at in range(len(paths))]


def _output_names(jax: Any, exported: Any) -> list[str]:
    return _named(_paths(jax, exported.out_tree), OUTPUT)


def _inputs(jax: Any, exported: Any, artifact: Artifact, options: LoadOptions) -> tuple[TensorSpec, ...]:
    """What the function takes: keywords and dict keys name themselves; the rest the user or an example may name."""
    names = _named([path[1:] for path in _paths(jax, exported.in_tree)], INPUT)
    said = declared_inputs(artifact, options)
    columns: list[tuple[str, ...]] = [()] * len(names)
    if said is not None and len(said.inputs) == len(names):
        if not {spec.name for spec in said.inputs} & set(names):
            names = [spec.name for spec in said.inputs]
        by_name = {spec.name: spec.columns for spec in said.inputs}
        columns = [by_name.get(name, ()) for name in names]
    elif options.signature is not None:
        raise LoadFailed(
            f"{artifact.label} takes {', '.join(names)}; the signature has {len(options.signature.inputs)}"
        )
    return tuple(
        TensorSpec(
            name, datatype_of(str(aval.dtype), f"{artifact.label}: the input {name!r}"), sizes(aval.shape), column
        )
        for name, aval, column in zip(names, exported.in_avals, columns, strict=True)
    )
