"""Who imports what, found by reading the sources and by really importing them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import turnout

SOURCE = Path(turnout.__file__).parent
MODEL_LIBRARIES = {
    *("catboost", "jax", "joblib", "keras", "lightgbm", "onnx", "onnxruntime", "pandas", "safetensors"),
    *("scipy", "skl2onnx", "sklearn", "skops", "tensorflow", "torch", "transformers", "xgboost"),
    *("h2o", "jpype", "mxnet", "openvino", "pypmml", "pyspark", "statsmodels", "treelite", "tvm"),
}
#: Of extras too, but no code of a model: a table in Arrow's form is data, and so is what an object store holds.
OPTIONAL = {*MODEL_LIBRARIES, "pyarrow", "obstore"}
#: What `pip install turnout` brings, by the name it is imported under.
BASE = {
    *(
        "google",
        "hpack",
        "httptools",
        "msgspec",
        "numpy",
        "orjson",
        "prometheus_client",
        "simdjson",
        "sqlalchemy",
        "uvloop",
    ),
    *("turnout", "yaml", *sys.stdlib_module_names),
}
#: The parts of the package that run in a router's process.
ROUTER = ("core", "monitoring", "protocols", "runtime", "entrypoints/http", "entrypoints/grpc", "entrypoints/router")


def module_name(path: Path) -> str:
    """`turnout.core.errors` for its file."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[str, bool]]:
    """The names a file imports, and whether at its top."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        at_top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, at_top


def test_core_knows_numpy_and_the_standard_library_only() -> None:
    allowed = {"numpy", "turnout", *sys.stdlib_module_names}
    for path in (SOURCE / "core").rglob("*.py"):
        for name, _ in imported(path):
            assert name.split(".")[0] in allowed, f"{module_name(path)} imports {name}"


def test_model_libraries_are_imported_where_models_are_loaded() -> None:
    """In formats; in the suites, which train models; and at the doors that take a data frame. Nowhere else."""
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).parts[0]
        names = {name for name, _ in imported(path) if name.split(".")[0] in MODEL_LIBRARIES}
        assert not names or place in {"formats", "testing", "entrypoints"}, f"{module_name(path)} imports {names}"


def test_the_base_install_is_enough_to_import_everything() -> None:
    """What an extra brings is imported when it is first used; the suites are for those who develop."""
    for path in SOURCE.rglob("*.py"):
        names = {(name.split(".")[0], at_top) for name, at_top in imported(path)}
        for name, at_top in names:
            if path.relative_to(SOURCE).parts[0] != "testing":
                assert name in BASE or (name in OPTIONAL and not at_top), f"{module_name(path)} imports {name}"


def test_one_file_speaks_to_prometheus() -> None:
    speakers = {
        module_name(path)
        for path in SOURCE.rglob("*.py")
        if any(name.split(".")[0] == "prometheus_client" for name, _ in imported(path))
    }
    assert speakers == {"turnout.monitoring.exposition"}


def router_modules() -> list[str]:
    places = [SOURCE / place for place in ROUTER]
    files = [*(path for place in places for path in place.rglob("*.py")), *(p.with_suffix(".py") for p in places)]
    return sorted(module_name(path) for path in files if path.is_file() and path.name != "__main__.py")


def test_a_router_s_process_has_no_model_library() -> None:
    modules = router_modules()
    assert len(modules) > 10
    script = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    loaded = {name.split(".")[0] for name in json.loads(ended.stdout)}
    assert not loaded & OPTIONAL
    assert "prometheus_client" not in loaded, "the first scrape imports it"


def test_the_package_itself_imports_nothing() -> None:
    """Workers import the package for what they need of it, and its version is read without the rest."""
    script = "import sys; before = set(sys.modules); import turnout; print(sorted(set(sys.modules) - before))"
    ended = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ast.literal_eval(ended.stdout)}
    assert loaded <= {"turnout", "typing", *sys.stdlib_module_names}


@pytest.mark.parametrize(
    ("module", "not_yet"),
    [
        (
            "turnout.entrypoints.cli",
            {"numpy", "asyncio", "ssl", "http.client", "yaml", "sqlalchemy", "turnout.formats"},
        ),
        (
            "turnout.entrypoints.serve",
            {"http.client", "urllib.request", "yaml", "sqlalchemy", "turnout.deploy.sources.known"},
        ),
        (
            "turnout.entrypoints.router",
            {"http.client", "yaml", "sqlalchemy", "turnout.formats", "turnout.deploy.sources"},
        ),
        (
            "turnout.entrypoints.worker",
            {"asyncio", "ssl", "http.client", "yaml", "sqlalchemy", "turnout.deploy.sources"},
        ),
    ],
)
def test_what_starts_imports_only_what_it_will_need(module: str, not_yet: set[str]) -> None:
    """Every start pays for these: a command's words, the controller, each router and each worker."""
    script = f"import json, sys; import {module}; print(json.dumps(list(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(json.loads(ended.stdout)) & not_yet


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_has_a_docstring_and_says_so_first(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{module_name(path)} does not say what it is"
