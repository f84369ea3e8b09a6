"""MLflow's environment files, `python_env.yaml` and `conda.yaml`, as requirement lines and a Python version."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.lines import name_of

#: What builds and installs, here as there; not what the model itself imports.
TOOLS = {"pip", "setuptools", "wheel"}
#: Conda packages that are certainly the same library on a Python index, and its name there.
COUNTERPARTS = {
    **dict.fromkeys(("pytorch", "pytorch-cpu"), "torch"),
    **dict.fromkeys(("py-xgboost", "py-xgboost-cpu"), "xgboost"),
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "ruamel-yaml": "ruamel-yaml",
    **{
        name: name
        for name in (
            *("catboost", "cloudpickle", "dill", "fastparquet", "gensim", "h5py", "imbalanced-learn", "jax", "joblib"),
            *("keras", "lightgbm", "matplotlib", "mlflow", "nltk", "numba", "numpy", "onnx", "onnxruntime", "openpyxl"),
            *("pandas", "patsy", "pillow", "polars", "prophet", "psutil", "pyarrow", "pydantic", "pyspark", "pyyaml"),
            *("requests", "safetensors", "scikit-image", "scikit-learn", "scipy", "seaborn", "sentencepiece", "shap"),
            *("skl2onnx", "spacy", "statsmodels", "tensorflow", "tensorflow-cpu", "tokenizers", "torchvision", "tqdm"),
            *("transformers", "typing-extensions", "xgboost"),
        )
    },
}
_SPEC = re.compile(
    r"(?:[\w./-]+::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)\s*(?P<version>(?:[=<>!~]|\s\d)[^\s\[]*(?:\s*,\s*[=<>!~][^\s\[]*)*)?"
    r"(?:\s+[\w.*]+)?"
)


class Wanted(NamedTuple):
    """Requirement lines (options such as `-r FILE` among them) and the Python version, "" where none is said."""

    lines: list[str]
    python: str


def python_env(found: object, label: str) -> Wanted:
    """What MLflow's `python_env.yaml` asks for. Raises EnvironmentFailed for another shape."""
    python = _mapping(found, label).get("python")
    if isinstance(python, float) and python < 3.2:
        raise EnvironmentFailed(f"{label}: python: {python} may mean 3.1 or 3.10; write it in quotes")
    lines = _texts(_mapping(found, label).get("dependencies"), f"{label}: dependencies")
    return Wanted(lines, _version("" if python is None else str(python), label))


def conda_env(found: object, label: str) -> Wanted:
    """The pip section of a `conda.yaml`, and those of its own packages that an index has as well."""
    lines: list[str] = []
    refused: list[str] = []
    for entry in _entries(found, label):
        if isinstance(entry, dict) and set(entry) == {"pip"}:
            lines += _texts(entry["pip"], f"{label}: pip")
        elif not isinstance(entry, str):
            raise EnvironmentFailed(f"{label}: dependencies: expected packages and one pip list; got {entry!r:.80}")
        else:
            name, _ = _split(entry, label)
            if name in TOOLS or name == "python":
                continue
            if name in COUNTERPARTS:
                lines.append(_requirement(entry, label))
            else:
                refused.append(name)
    if refused:
        raise EnvironmentFailed(
            f"{label}: the conda packages {', '.join(refused)} have no certain counterpart on a Python index; say what "
            "is to be installed instead with requirements of your own in the spec"
        )
    return Wanted(lines, python_of(found, label))


def python_of(found: object, label: str) -> str:
    """The Python version that a `conda.yaml` asks for, "" where it says none."""
    for entry in _entries(found, label):
        if isinstance(entry, str) and _split(entry, label)[0] == "python":
            return _version(_split(entry, label)[1], label)
    return ""


def has_pip_section(found: dict[Any, Any]) -> bool:
    """Whether a document lists packages as conda does, with those of pip in a list of their own."""
    entries = found.get("dependencies")
    return isinstance(entries, list) and any(isinstance(entry, dict) and "pip" in entry for entry in entries)


def _requirement(entry: str, label: str) -> str:
    """A conda package with conda's version rules as a requirement: `a=1.2` is any 1.2, `a==1.2` is that one."""
    name, version = _split(entry, label)
    clauses = []
    for part in filter(None, re.split(r"\s*,\s*", version)):
        exact = re.fullmatch(r"(?P<mark>==?)?\s*(?P<value>\d[\w.+!-]*?)(?P<any>\.?\*)?(?P<build>=[\w.*]+)?", part)
        if exact is not None:
            fuzzy = exact["any"] or (exact["mark"] == "=" and not exact["build"])
            clauses.append(f"=={exact['value']}{'.*' if fuzzy else ''}")
        elif re.fullmatch(r"(?:<=|>=|<|>|!=|~=)\s*\d[\w.*+!-]*", part):
            clauses.append(part)
        elif part.lstrip("=") != "*":
            raise EnvironmentFailed(f"{label}: the version of the conda package {entry!r} cannot be taken over exactly")
    return COUNTERPARTS[name] + ",".join(clauses)


def _split(entry: str, label: str) -> tuple[str, str]:
    found = _SPEC.fullmatch(entry.strip())
    if found is None:
        raise EnvironmentFailed(f"{label}: {entry!r:.80} is no conda package that can be read")
    private = found["name"].startswith("_")  # conda's own, as _libgcc_mutex; no index has such names
    return found["name"] if private else name_of(found["name"]), (found["version"] or "").strip()


def _version(text: str, label: str) -> str:
    """`3.11` of `3.11.7`, `=3.11`, `==3.11.*`; bounds and nothing at all leave the choice open."""
    text = text.strip()
    if not text or text == "*" or text[0] in "<>!~":
        return ""
    found = re.fullmatch(r"={0,2}\s*(\d+\.\d+)(?:\.[\w*]+)?(?:=[\w.*]+)?", text)
    if found is None:
        raise EnvironmentFailed(f"{label}: python: expected a version such as 3.11.7; got {text[:40]!r}")
    return found[1]


def _entries(found: object, label: str) -> list[object]:
    entries = _mapping(found, label).get("dependencies")
    if not isinstance(entries, list):
        raise EnvironmentFailed(f"{label}: dependencies: expected a list; got {type(entries).__name__}")
    return entries


def _mapping(found: object, label: str) -> dict[Any, Any]:
    if not isinstance(found, dict):
        raise EnvironmentFailed(f"{label}: expected a mapping with dependencies; got {type(found).__name__}")
    return found


def _texts(found: object, label: str) -> list[str]:
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise EnvironmentFailed(f"{label}: expected a list of requirements; got {found!r:.80}")
    return found
