"""The conformance suite for model formats: what must hold for every format, whatever library reads it.

Give `check_format` a real model file, rows, and what the library itself answers for them. It checks that the format
is recognised without its library, that the answers are the library's, that rows do not influence each other, that the
signature tells the truth, that two threads may predict at once, and that broken or mislabelled files are refused.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnout import formats
from turnout.core.errors import Failure, FormatMismatch, LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import DTYPES, Tensors, join_rows, slice_rows
from turnout.formats import Artifact, LoadOptions

#: Modules that recognising a file must not import.
LIBRARIES = (
    "sklearn",
    "skops",
    "joblib",
    "xgboost",
    "lightgbm",
    "catboost",
    "onnxruntime",
    "onnx",
    "torch",
    "tensorflow",
    "keras",
    "h5py",
    "jax",
    "safetensors",
    "transformers",
    "pandas",
    "pyarrow",
)


@dataclass(frozen=True)
class Tolerance:
    """How far an answer may be from the library's own: none by default."""

    relative: float = 0.0
    absolute: float = 0.0


EXACT = Tolerance()


def check_format(
    path: Path | str,
    *,
    format: str,
    rows: Tensors,
    expected: Tensors,
    options: LoadOptions | None = None,
    tolerance: Tolerance = EXACT,
    split: Tolerance | None = None,
    wrong_suffix: str | None = None,
    damage: bool = True,
    essential: Sequence[str] = (),
) -> Model:
    """Runs every check and gives the loaded model back. Raises AssertionError saying what does not hold.

    `rows` are at least two rows under the signature's names, `expected` the library's own outputs for them.
    `split` is how far a row alone may be from the same row in a batch (default: `tolerance`). `wrong_suffix` is
    an ending that promises something else. `damage=False` leaves out broken copies (for code, not files). Of an
    artifact that is a directory, `essential` are the files without which it must not load, as paths inside it.
    The suite needs numpy alone, so it runs in the library's own environment.
    """
    options = options or LoadOptions()
    check_recognised(path, format)
    model = formats.load(path, options)
    check_signature(model, rows)
    check_answers(model, rows, expected, tolerance)
    if model.signature.batched:
        check_splits(model, rows, split or tolerance)
    check_threads(model, rows)
    place = Artifact.of(path).path
    if damage and place is not None and place.is_dir():
        check_broken_directory(path, options, essential)
    elif damage:
        check_broken(Path(path), options)
    if wrong_suffix is not None:
        check_mislabelled(Path(path), wrong_suffix, options)
    return model


def check_recognised(path: Path | str, format: str) -> None:
    """The format is found by content, in an interpreter that afterwards holds no model library."""
    program = (
        "import json, sys\n"
        "from turnout import formats\n"
        "found = formats.detect(formats.Artifact.of(sys.argv[1]))\n"
        "print(json.dumps([found.name, [m for m in sys.argv[2:] if m in sys.modules]]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path), *LIBRARIES], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    name, imported = json.loads(ended.stdout)
    assert name == format, f"{path} was recognised as {name}, not {format}"
    assert not imported, f"recognising {path} imported {', '.join(imported)}"


def check_signature(model: Model, rows: Tensors) -> None:
    """The inputs are those of the rows, every output is declared, and what comes is what was declared."""
    assert isinstance(model, Model)
    signature = model.signature
    assert isinstance(signature, Signature)
    assert signature.inputs, "the signature has no inputs"
    assert signature.outputs, "the signature has no outputs"
    inputs, count = signature.validate(rows)
    answer = model.predict(inputs)
    signature.check_outputs(answer, count)
    assert set(answer) == {spec.name for spec in signature.outputs}, f"outputs {sorted(answer)} are not those declared"
    for spec in signature.outputs:
        array = answer[spec.name]
        assert array.dtype == DTYPES[spec.datatype], f"{spec.name} is {array.dtype}, declared as {spec.datatype}"
        if array.dtype.kind == "O":
            assert all(type(v) is bytes for v in array.flat), f"{spec.name} holds elements that are not bytes"
        if signature.batched:
            assert spec.accepts(array.shape), f"{spec.name} has shape {array.shape}, declared as {spec.shape}"


def check_answers(model: Model, rows: Tensors, expected: Tensors, tolerance: Tolerance = EXACT) -> None:
    """The answers are the library's own, and the inputs are left as they were."""
    inputs, _ = model.signature.validate(rows)
    before = {name: array.copy() for name, array in inputs.items()}
    frozen = {name: array.copy() for name, array in inputs.items()}
    for array in frozen.values():
        array.flags.writeable = False  # a batch may be a view of memory that the model must not write
    answer = model.predict(frozen)
    for name, want in expected.items():
        assert name in answer, f"there is no output {name!r}; there is {', '.join(answer)}"
        assert_same(answer[name], want, tolerance, name)
    for name, array in before.items():
        assert np.array_equal(array, frozen[name], equal_nan=array.dtype.kind == "f"), f"predict changed {name!r}"


def check_splits(model: Model, rows: Tensors, tolerance: Tolerance = EXACT) -> None:
    """Rows one by one, in halves, and all together get the same answers."""
    inputs, count = model.signature.validate(rows)
    whole = model.predict(inputs)
    limit = model.signature.rows_limit
    sizes = {limit} if limit is not None else {1, max(1, count // 2)}
    for size in sizes:
        parts = [model.predict(slice_rows(inputs, at, at + size)) for at in range(0, count - count % size, size)]
        joined = join_rows(parts)
        for name, array in joined.items():
            assert_same(array, whole[name][: len(array)], tolerance, f"{name} in batches of {size}")


def check_threads(model: Model, rows: Tensors, rounds: int = 20) -> None:
    """Two threads that predict different rows at once get their own answers."""
    inputs, count = model.signature.validate(rows)
    backwards = {name: array[::-1].copy() for name, array in inputs.items()} if model.signature.batched else inputs
    expected = [model.predict(inputs), model.predict(backwards)]
    wrong: list[str] = []

    def run(which: int, mine: Tensors) -> None:
        for _ in range(rounds):
            try:
                answer = model.predict(mine)
                for name, array in answer.items():
                    assert_same(array, expected[which][name], EXACT, name)
            except Exception as problem:  # noqa: BLE001  whatever a thread met is reported by the main one
                wrong.append(f"{type(problem).__name__}: {problem}")
                return

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate((inputs, backwards))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, f"{count} rows in two threads: {wrong[0]}"


def check_broken(path: Path, options: LoadOptions, *, flips: int = 6) -> None:
    """Empty and cut files are refused; a file with flipped bits is refused or loads, and raises nothing else.

    The copies are loaded in another process: some libraries end theirs on damaged files, or read them for ever, which
    is what worker processes and their time-outs are for. That counts as a refusal here, for flipped bits only.
    """
    data = path.read_bytes()
    random_bits = random.Random(len(data))  # noqa: S311  the same flips each time
    copies: dict[str, bytes] = {"empty": b"", "cut in half": data[: len(data) // 2], "last byte": data[:-1]}
    copies["first bytes"] = data[:8]
    for number in range(flips):
        broken = bytearray(data)
        broken[random_bits.randrange(len(data))] ^= 1 << random_bits.randrange(8)
        copies[f"bit {number}"] = bytes(broken)
    with tempfile.TemporaryDirectory() as place:
        files = {}
        for number, (what, content) in enumerate(copies.items()):
            copy = Path(place) / str(number) / path.name
            copy.parent.mkdir()
            copy.write_bytes(content)
            files[what] = str(copy)
        for what, outcome in _outcomes(files, options).items():
            refused = outcome.startswith("refused")
            allowed = refused or (what.startswith("bit") and outcome in _WORKER_CONTAINS)
            if what == "last byte":
                allowed = refused or outcome == "loaded"  # a final newline, say, is no loss
            assert allowed, f"{path.name} ({what}): {outcome}"


def check_broken_directory(path: Path | str, options: LoadOptions, essential: Sequence[str]) -> None:
    """Copies of a directory with one file gone, empty, cut or with a flipped bit are refused, or load.

    Where the file is one of `essential`, they have to be refused; with a flipped bit they may load, or end the process.
    """
    artifact = Artifact.of(path)
    source = artifact.file
    names = sorted(str(file.relative_to(source)) for file in source.rglob("*") if file.is_file())
    assert set(essential) <= set(names), f"{source.name} holds {', '.join(names)}"
    fragment = f"#{artifact.fragment}" if artifact.fragment else ""
    with tempfile.TemporaryDirectory() as place:
        copies = {}
        for number, (name, what) in enumerate((name, what) for name in names for what in _DAMAGES):
            copy = Path(place) / str(number) / source.name
            shutil.copytree(source, copy)
            _damage(copy / name, what)
            copies[f"{name} {what}"] = f"{copy}{fragment}"
        for broken, outcome in _outcomes(copies, options).items():
            name, _, what = broken.rpartition(" ")
            allowed = _WORKER_CONTAINS if what == "flipped" else set() if name in essential else {"loaded"}
            assert outcome.startswith("refused") or outcome in allowed, f"{source.name} with {broken}: {outcome}"


#: What a flipped bit may do besides being refused: a worker process and its load time-out contain it.
_WORKER_CONTAINS = {"loaded", "ended the process", "did not end"}
_PATIENCE = 120.0
_DAMAGES = ("gone", "empty", "cut", "flipped")


def _damage(file: Path, what: str) -> None:
    data = bytearray(file.read_bytes())
    if what == "gone":
        file.unlink()
        return
    if what == "flipped" and data:
        data[random.Random(len(data)).randrange(len(data))] ^= 4  # noqa: S311  the same flip each time
    file.write_bytes(data if what == "flipped" else data[: len(data) // 2] if what == "cut" else b"")


def _outcomes(files: Mapping[str, str], options: LoadOptions) -> dict[str, str]:
    """What loading each file does, in processes that go on where one ended."""
    program = (
        "import json, sys\n"
        "from turnout import formats\n"
        "from turnout.core.errors import LoadFailed\n"
        "from turnout.core.signature import Signature\n"
        "said = json.loads(sys.argv[3])\n"
        "options = formats.LoadOptions(trust_pickle=sys.argv[1] == 'True', format=sys.argv[2] or None,\n"
        "    signature=Signature.from_json(said) if said else None)\n"
        "for path in sys.argv[4:]:\n"
        "    try:\n"
        "        formats.load(path, options)\n"
        "        print('\\nOUTCOME loaded', flush=True)\n"
        "    except LoadFailed as failure:\n"
        "        print('\\nOUTCOME refused', type(failure).__name__, flush=True)\n"
        "    except BaseException as problem:\n"
        "        print('\\nOUTCOME raised', type(problem).__name__, problem, flush=True)\n"
    )
    said = json.dumps(options.signature.to_json() if options.signature is not None else None)
    outcomes: dict[str, str] = {}
    waiting: Sequence[str] = list(files)
    while waiting:
        arguments = [str(options.trust_pickle), options.format or "", said, *(files[what] for what in waiting)]
        printed, how = _printed([sys.executable, "-c", program, *arguments])
        found = [line.removeprefix("OUTCOME ") for line in printed.splitlines() if line.startswith("OUTCOME ")]
        if len(found) < len(waiting):
            found.append(how)
        outcomes.update(zip(waiting, found, strict=False))
        waiting = waiting[len(found) :]
    return outcomes


def _printed(command: Sequence[str]) -> tuple[str, str]:
    """What a process printed, and what became of it. Libraries are known to read a damaged file for ever."""
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_PATIENCE, check=False)
        printed, how = ended.stdout, "ended the process"
    except subprocess.TimeoutExpired as late:
        printed, how = late.stdout or b"", "did not end"
    return printed.decode(errors="replace"), how  # native code repeats the damaged bytes


def check_mislabelled(path: Path, wrong_suffix: str, options: LoadOptions) -> None:
    """A copy whose ending promises something else is refused, saying both."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / f"copy{wrong_suffix}"
        shutil.copyfile(path, copy)
        refusal = refused(lambda: formats.load(copy, options), FormatMismatch)
        assert wrong_suffix in str(refusal), f"the refusal does not name the ending: {refusal}"


def refused(act: Callable[[], object], kind: type[LoadFailed] = LoadFailed) -> Failure:
    """The failure that `act` raises. Raises AssertionError if it does not, or raises something else."""
    try:
        act()
    except kind as failure:
        return failure
    raise AssertionError(f"nothing was refused; expected {kind.__name__}")


def assert_same(got: np.ndarray, want: np.ndarray, tolerance: Tolerance = EXACT, what: str = "the answer") -> None:
    """Equal shape and values; text is compared as bytes, NaN equals NaN."""
    want = np.asarray(want)
    if want.dtype.kind in "OUS":
        want = np.array([v.encode() if isinstance(v, str) else v for v in want.ravel()], dtype=object).reshape(
            want.shape
        )
    assert got.shape == want.shape, f"{what}: shape {got.shape}, not {want.shape}"
    if got.dtype.kind == "O" or want.dtype.kind == "O":
        assert got.tolist() == want.tolist(), f"{what}: {got.ravel()[:4]}, not {want.ravel()[:4]}"
        return
    same = np.isclose(got, want, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True)
    worst = float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64)), initial=0.0))
    assert bool(np.all(same)), f"{what}: differs by up to {worst}"
