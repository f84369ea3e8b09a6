"""PyTorch: TorchScript and exported programs, and no pickle that runs. Needs torch: `pytest -m torch`."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np
import pytest

from turnout import formats
from turnout.core.errors import LoadFailed, PickleRefused
from turnout.core.signature import TensorSpec
from turnout.formats import LoadOptions
from turnout.testing.formats import Tolerance, check_format

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
ROWS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
CLOSE = Tolerance(1e-5, 1e-6)
INPUT = TensorSpec("x", "FP32", (-1, 4))


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))

    def forward(self, x):
        return torch.softmax(self.layers(x), -1)


class SumAndDifference(torch.nn.Module):
    def forward(self, a, *, b):
        return {"sum": a + b, "difference": a - b}


class Mixes(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def exported(module, args, path, kwargs=None, limit=None):
    dim = torch.export.Dim("batch", max=limit) if limit else torch.export.Dim("batch")
    shapes = {name: {0: dim} for name in (["x"] if not kwargs else ["a", *kwargs])}
    torch.export.save(torch.export.export(module, args, kwargs, dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("form", ["script", "trace", "export"])
def test_a_classifier_answers_as_itself(tmp_path, form):
    module = Classifier().eval()
    path = tmp_path / ("m.pt2" if form == "export" else "m.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "script":
            torch.jit.script(module).save(path)
        elif form == "trace":
            torch.jit.trace(module, torch.zeros(2, 4)).save(path)
        else:
            exported(module, (torch.zeros(2, 4),), path)
    with torch.inference_mode():
        want = module(torch.from_numpy(ROWS)).numpy()
    wrong = ".ts" if form == "export" else ".pt2"
    model = check_format(
        path,
        format="torch",
        rows={"x": ROWS},
        expected={"output": want},
        tolerance=CLOSE,
        wrong_suffix=wrong,
    )
    assert model.signature.inputs == (INPUT,)
    assert model.signature.outputs == (TensorSpec("output", "FP32", (-1, 3)),)


def test_keywords_dicts_and_a_largest_batch(tmp_path):
    path = exported(
        SumAndDifference(), (torch.zeros(2, 3),), tmp_path / "m.pt2", kwargs={"b": torch.zeros(2, 3)}, limit=4
    )
    model = formats.load(path)
    a, b = np.ones((9, 3), np.float32), np.full((9, 3), 2, np.float32)
    answer = model.predict({"a": a, "b": b})
    assert np.array_equal(answer["sum"], a + b)
    assert np.array_equal(answer["difference"], a - b)


def test_a_module_that_mixes_its_rows_is_not_batched(tmp_path):
    path = exported(Mixes(), (torch.zeros(2, 4),), tmp_path / "m.pt2")
    assert not formats.load(path).signature.batched


def test_a_script_whose_input_is_not_known_asks_for_an_example(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Mixes()).save(tmp_path / "m.pt")
    with pytest.raises(LoadFailed, match="example"):
        formats.load(tmp_path / "m.pt")
    model = formats.load(tmp_path / "m.pt", LoadOptions(example={"x": np.ones((2, 4))}))
    assert model.signature.inputs == (INPUT,)


@pytest.mark.parametrize("what", ["weights", "module"])
def test_what_torch_save_writes_is_refused(tmp_path, what):
    module = Classifier()
    torch.save(module.state_dict() if what == "weights" else module, tmp_path / "m.pt")
    with pytest.raises(LoadFailed, match=r"torch\.export\.save"):
        formats.load(tmp_path / "m.pt", LoadOptions(trust_pickle=True))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def replaced(path, member, content):
    """The same archive with one member's bytes changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if member in name)
    parts[name] = content(parts[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for each, data in parts.items():
            archive.writestr(each, data)


def test_a_pickle_in_the_sample_inputs_does_not_run(tmp_path):
    path = exported(Classifier().eval(), (torch.zeros(2, 4),), tmp_path / "m.pt2")
    torch.save(Evil(tmp_path / "ran"), tmp_path / "evil.pt")
    replaced(path, "sample_inputs/", lambda _: (tmp_path / "evil.pt").read_bytes())
    with pytest.raises(PickleRefused, match="sample inputs"):
        formats.load(path)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_the_weights_does_not_run(tmp_path):
    path = exported(Classifier().eval(), (torch.zeros(2, 4),), tmp_path / "m.pt2")
    torch.save(Evil(tmp_path / "ran"), tmp_path / "evil.pt")
    replaced(path, "weights/weight_0", lambda _: (tmp_path / "evil.pt").read_bytes())
    replaced(path, "weights_config.json", lambda text: text.replace(b'"use_pickle": false', b'"use_pickle": true'))
    with pytest.raises(PickleRefused, match="weights"):
        formats.load(path)
    assert not (tmp_path / "ran").exists()
