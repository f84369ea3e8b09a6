"""Finds the Python object behind a reference, a file or a directory, and says how it wants to be called."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.formats.artifact import URIS, Artifact

FILE = "model.py"
#: The names that are looked for in a file when the user names none.
ATTRIBUTES = ("model", "Model", "predict")
_MAPPINGS = ("dict", "Dict", "Mapping", "Tensors", "MutableMapping")


def find(artifact: Artifact) -> tuple[Any, ModuleType]:
    """The object and its module. Raises LoadFailed where there is none, or importing it fails."""
    module = _import(artifact)
    if artifact.attribute:
        found: Any = module
        for part in artifact.attribute.split("."):
            if not hasattr(found, part):
                raise LoadFailed(
                    f"{artifact.given}: {module.__name__} has no {artifact.attribute!r}; it has {_public(module)}"
                )
            found = getattr(found, part)
        return found, module
    for name in ATTRIBUTES:
        if hasattr(module, name):
            return getattr(module, name), module
    own = [v for n, v in vars(module).items() if _is_model_class(v, module) and not n.startswith("_")]
    if len(own) == 1:
        return own[0], module
    raise LoadFailed(
        f"{artifact.label}: none of {', '.join(ATTRIBUTES)} and not exactly one class with predict in it; it has "
        f"{_public(module)}. Name the object: python:{artifact.label}:NAME"
    )


def _is_model_class(value: Any, module: ModuleType) -> bool:
    return inspect.isclass(value) and value.__module__ == module.__name__ and callable(getattr(value, "predict", None))


def _public(module: ModuleType) -> str:
    names = [
        n
        for n, v in vars(module).items()
        if not n.startswith("_") and getattr(v, "__module__", None) == module.__name__
    ]
    return ", ".join(names[:10]) or "nothing of its own"


def _import(artifact: Artifact) -> ModuleType:
    try:
        if artifact.module:
            _add_path(Path.cwd())
            return importlib.import_module(artifact.module)
        path = artifact.file / FILE if artifact.is_directory else artifact.file
        path = path.resolve()
        _add_path(path.parent)
        name = (
            path.stem
            if path.stem.isidentifier() and path.stem not in sys.modules
            else f"turnout_model_{path.parent.name}"
        )
        described = importlib.util.spec_from_file_location(name, path)
        if described is None or described.loader is None:
            raise LoadFailed(f"{artifact.label} is not a Python file")
        module = importlib.util.module_from_spec(described)
        sys.modules[name] = module
        try:
            described.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        return module
    except LoadFailed:
        raise
    except ModuleNotFoundError as problem:
        raise LoadFailed(
            f"{artifact.label}: there is no module {problem.name!r}. A module is looked for in the current directory "
            f"and among the installed packages{f'. {URIS}' if problem.name == artifact.module else ''}"
        ) from problem
    except Exception as problem:
        raise LoadFailed(f"{artifact.label}: importing it failed ({type(problem).__name__}: {problem})") from problem


def _add_path(directory: Path) -> None:
    """The modules beside a model are its own; they stay importable, since code may import late."""
    text = os.fspath(directory)
    if text not in sys.path:
        sys.path.insert(0, text)


def instance(found: Any, label: str) -> Any:
    """The object to call: a class is made without arguments, and a `load` it has is called once."""
    if inspect.isclass(found):
        try:
            found = found()
        except Exception as problem:
            raise LoadFailed(f"{label}: {found.__name__}() failed ({type(problem).__name__}: {problem})") from problem
    load = getattr(found, "load", None)
    if callable(load) and callable(getattr(found, "predict", None)):
        _refuse_async(load, f"{label}: load")
        try:
            load()
        except TypeError as problem:
            raise LoadFailed(f"{label}: load() takes no arguments here ({problem})") from problem
        except Exception as problem:
            raise LoadFailed(f"{label}: load() failed ({type(problem).__name__}: {problem})") from problem
    return found


def predict_of(found: Any, label: str) -> Callable[..., Any]:
    """The synchronous function that predicts. Raises LoadFailed for coroutines and generators."""
    predict = getattr(found, "predict", None)
    if not callable(predict):
        predict = found
    if not callable(predict):
        raise LoadFailed(f"{label} is a {type(found).__name__}: a model is a function, or a class with predict")
    _refuse_async(predict, f"{label}: {getattr(predict, '__name__', type(predict).__name__)}")
    return predict  # type: ignore[no-any-return]


def _refuse_async(function: Any, what: str) -> None:
    called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise LoadFailed(f"{what} is asynchronous; a model is a plain function over a batch: remove `async`")
    if inspect.isgeneratorfunction(called):
        raise LoadFailed(f"{what} is a generator; a model returns all rows of a batch at once: return instead of yield")


def parameters(predict: Callable[..., Any], label: str) -> Sequence[inspect.Parameter]:
    """The parameters that a call must fill. Raises LoadFailed where it has none."""
    try:
        found = list(inspect.signature(predict).parameters.values())
    except (TypeError, ValueError):
        return ()
    taken = [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not found:
        raise LoadFailed(f"{label}: the function takes no argument; it needs one for the inputs")
    return taken


def wants_mapping(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes all inputs as a dict: by its name `inputs`, or by its annotation."""
    kind = parameter.annotation
    if isinstance(kind, str):
        return kind.rpartition(".")[2].split("[")[0] in _MAPPINGS or kind.split("[")[0].rpartition(".")[2] in _MAPPINGS
    origin = getattr(kind, "__origin__", kind)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return True
    return parameter.name == "inputs" and kind in (inspect.Parameter.empty, Any)
