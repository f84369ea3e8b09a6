"""Stories that a reader can follow, each run as it stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import joblib
import numpy as np
import onnx
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression, LogisticRegression

from tests.stories.story import Story, matches, parse

STORIES = sorted(Path(__file__).parent.glob("*.story"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`double` doubles a number, `sign` says whether two are positive: with skops, as ONNX, and one as a pickle."""
    folder = tmp_path_factory.mktemp("trained")
    x = np.arange(-5.0, 6.0)[:, None]
    double = LinearRegression().fit(x, 2.0 * x[:, 0])
    skops.io.dump(double, folder / "double.skops")
    onnx.save(to_onnx(double, x[:1].astype(np.float32)), folder / "double.onnx")
    rows = np.array([[-1.0, -2.0], [-2.0, -1.0], [1.0, 2.0], [2.0, 1.0]] * 5)
    sign = LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, "positive", "negative"))
    skops.io.dump(sign, folder / "sign.skops")
    joblib.dump(sign, folder / "sign.joblib")
    graph = to_onnx(sign, rows[:1].astype(np.float32), options={"zipmap": False})
    onnx.save(graph, folder / "sign.onnx")
    return folder


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, trained: Path, tmp_path: Path) -> None:
    for artifact in trained.iterdir():
        shutil.copy(artifact, tmp_path)
    Story(path, tmp_path).run()


def test_there_are_stories() -> None:
    assert len(STORIES) >= 5


@pytest.mark.parametrize(
    ("wanted", "got", "fits"),
    [
        ("a\nb", "a\nb\n", True),
        ("a\nb", "a\nc\n", False),
        ("a ... c", "a b c\n", True),
        ("a ... c", "a b d\n", False),
        ("...\nb", "x\ny\nb\n", True),
        ("a\n...", "a\n", True),
        ("...", "", True),
        ("", "", True),
        ("", "something\n", False),
        ("[1.5]", "[1x5]\n", False),
    ],
)
def test_the_runner_can_fail(wanted: str, got: str, fits: bool) -> None:
    assert (matches(wanted, got) is not None) == fits


def test_what_is_kept() -> None:
    found = matches("at http://host:(PORT)/x", "at http://host:8080/x\n")
    assert found is not None
    assert found["PORT"] == "8080"


def test_what_is_no_step() -> None:
    with pytest.raises(ValueError, match="line 2: not a step"):
        parse("# a story\nls -l\n")
