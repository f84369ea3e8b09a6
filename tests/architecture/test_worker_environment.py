"""A worker runs in the model's own environment, which may hold nothing but numpy, and an old one."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import turnout

SOURCE = Path(turnout.__file__).parent
#: What a worker imports before it knows which model it has.
ENTRANCE = "turnout.entrypoints.worker"
#: What numpy has had since 1.24 at the earliest; a worker may have 1.23.
NEWER = {
    *("acos", "acosh", "asin", "asinh", "astype", "atan", "atan2", "atanh", "bitwise_count", "bitwise_invert"),
    *("bitwise_left_shift", "bitwise_right_shift", "bool", "concat", "cumulative_prod", "cumulative_sum", "dtypes"),
    *("exceptions", "isdtype", "long", "matrix_transpose", "matvec", "permute_dims", "pow", "strings", "trapezoid"),
    *("ulong", "unique_all", "unique_counts", "unique_inverse", "unique_values", "unstack", "vecdot", "vecmat"),
}
WITHOUT_LIBRARIES = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {"numpy", "turnout", *sys.stdlib_module_names}:
            raise ModuleNotFoundError(f"this environment has no {name}", name=name)

sys.meta_path.insert(0, Refuse())
"""
SERVE = """
import json, sys
import turnout.entrypoints.worker
print(json.dumps(sorted(n for n in sys.modules if n.startswith("turnout."))))
import numpy as np
from turnout import formats
from turnout.core.errors import MissingExtra
from turnout.core.tensors import bytes_array
from turnout.runtime import frames
from turnout.runtime.lifeline import Lifeline
from turnout.runtime.wire import pair
from turnout.runtime.work import WorkLoop, warm_up

code, foreign = sys.argv[1:]
assert formats.detect(formats.Artifact.of(code)).name == "python"
model = formats.load(code)
warm_up(model, None)
ours, theirs = pair()
loop = WorkLoop(model, Lifeline(ours), lambda message, fds: True)
sent = [frames.piece(0, np.array([1.0, 2.0, 4.0])), frames.piece(1, bytes_array(["a", "b", "grün"], [3]))]
answer = frames.decode(b"".join(loop.answer(frames.decode(b"".join(frames.encode(1, 0.0, [2, 1], [9e9, 9e9], sent))))))
assert answer.note is None, answer.note
ours.close(), theirs.close()
outputs = {spec.name: answer.tensors[place] for place, spec in enumerate(model.signature.outputs)}
try:
    formats.load(foreign)
except MissingExtra as refusal:
    print(json.dumps(str(refusal)))
print(json.dumps([outputs["double"].tolist(), [v.decode() for v in outputs["text"].tolist()]]))
"""
MODEL = """
import numpy as np

class Model:
    example = {"number": np.array([1.0]), "name": np.array(["a"])}

    def predict(self, inputs):
        return {"double": inputs["number"] * 2, "text": np.char.upper(inputs["name"].astype(str))}
"""


def served(python: str, program: str, tmp_path: Path) -> list[object]:
    """What the program prints in that interpreter, which finds Turnout where a worker does."""
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "m.txt").write_text("tree\nversion=v4\n")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    argv = [python, "-W", "error", "-c", program, str(tmp_path / "model.py"), str(tmp_path / "m.txt")]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def worker_modules(tmp_path: Path) -> list[str]:
    """Every module of Turnout that a worker imports before it has a model."""
    (loaded, *_) = served(sys.executable, WITHOUT_LIBRARIES + SERVE, tmp_path)
    assert isinstance(loaded, list)
    return loaded


def test_a_worker_serves_with_numpy_and_nothing_else(tmp_path):
    loaded, *said, answer = served(sys.executable, WITHOUT_LIBRARIES + SERVE, tmp_path)
    assert ENTRANCE in loaded
    assert "turnout.formats.onnx" in loaded
    assert answer == [[2.0, 4.0, 8.0], ["A", "B", "GRÜN"]]
    assert len(said) == 1
    assert "pip install 'turnout[lightgbm]'" in str(said[0])


@pytest.mark.formats
@pytest.mark.parametrize("numpy", ["numpy==1.23.5", "numpy>=2.3"])
def test_a_worker_serves_with_an_old_and_a_new_numpy(numpy, tmp_path):
    """In real environments, which hold numpy and not even Turnout."""
    uv = Path(sys.executable).with_name("uv")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True, timeout=60)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, numpy], check=True, timeout=100)
    *_, answer = served(str(python), SERVE, tmp_path)
    assert answer == [[2.0, 4.0, 8.0], ["A", "B", "GRÜN"]]


def test_a_worker_calls_nothing_that_an_old_numpy_lacks(tmp_path):
    for module in worker_modules(tmp_path):
        path = SOURCE.parent / Path(*module.split("."))
        path = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "np":
                assert node.attr not in NEWER, f"{module}:{node.lineno}: np.{node.attr}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"np.asarray", "np.array"}:
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert not ast.unparse(node.func).endswith("asarray") or not {"copy", "device"} & set(given), module
                assert given.get("copy") not in {"None", "False"}, f"{module}:{node.lineno}: means another thing there"
