"""What a model asks for: found in the spec or beside the artifact, in the order in which MLflow looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from turnout.core.errors import EnvironmentFailed, InvalidInput
from turnout.deploy.environments import conda
from turnout.deploy.environments.environment import Requirements
from turnout.deploy.environments.lines import FILES, PLACES, canonical_all, is_idle, logical_lines, option
from turnout.deploy.yaml_text import read_yaml

LOCK = "requirements.lock"
PLAIN = "requirements.txt"
PYTHON_ENV = "python_env.yaml"
CONDA = "conda.yaml"
_MAX_BYTES = 4 << 20
_MAX_DEPTH = 8


def requirements_of(directory_or_file: Path, given: Path | Sequence[str] | None = None) -> Requirements | None:
    """What the model wants installed, or None where nothing says so.

    `given` is what the spec names: a file (a lock, `requirements.txt`, `python_env.yaml` or `conda.yaml` by its
    ending), or requirement lines; an empty list says that numpy is enough. Without it the artifact's directory
    is looked through (a file's own folder): `requirements.lock`, then what MLflow writes, in its order:
    `python_env.yaml`, `requirements.txt`, `conda.yaml`. The Python version is `python_env.yaml`'s, or else
    `conda.yaml`'s. Raises EnvironmentFailed for what cannot be taken, with the file and the line's text.
    """
    if given is not None and not isinstance(given, Path):
        return Requirements(canonical_all(given, "the spec"))
    if given is not None:
        return _given(given)
    folder = directory_or_file if directory_or_file.is_dir() else directory_or_file.parent
    lock, plain, python_env, conda_env = (folder / name for name in (LOCK, PLAIN, PYTHON_ENV, CONDA))
    python = ""
    if python_env.is_file():
        python = conda.python_env(_yaml(python_env), PYTHON_ENV).python
    elif conda_env.is_file():
        python = conda.python_of(_yaml(conda_env), CONDA)
    if lock.is_file():
        return _from_lines(lock, python)
    if python_env.is_file():
        return _from_python_env(python_env)
    if plain.is_file():
        return _from_lines(plain, python)
    return _from_conda(conda_env) if conda_env.is_file() else None


def _given(path: Path) -> Requirements:
    if not path.is_file():
        raise EnvironmentFailed(f"there is no requirements file {path.name!r}")
    if path.suffix not in {".yaml", ".yml"}:
        return _from_lines(path, "")
    found = _yaml(path)
    is_conda = isinstance(found, dict) and ("channels" in found or conda.has_pip_section(found))
    return _from_conda(path) if is_conda else _from_python_env(path)


@dataclass(slots=True)
class _Read:
    """What files of requirements have said so far."""

    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def take(self, lines: Sequence[str], origin: str, folder: Path, depth: int = 0, kind: str = "requirements") -> None:
        """Reads requirement lines and follows `-r` and `-c` inside `folder`, which holds the model's files."""
        for line in lines:
            found = option(line)
            if found is None or found[0] in {"-e", "--editable"}:
                (self.lines if kind == "requirements" else self.constraints).append(line)
            elif found[0] in PLACES:
                self.places.append(line)
            elif found[0] in FILES:
                inner = _inside(folder, found[1], origin, depth)
                wanted = "constraints" if kind == "constraints" else FILES[found[0]]
                self.take(list(logical_lines(_text(inner))), inner.name, inner.parent, depth + 1, wanted)
            elif not is_idle(found[0]):
                raise EnvironmentFailed(f"{origin}: the option {found[0]} is not taken from a model")

    def requirements(self, origin: str, python: str) -> Requirements:
        return Requirements(
            canonical_all(self.lines, origin),
            python,
            origin,
            canonical_all(self.constraints, origin),
            tuple(dict.fromkeys(self.places)),
        )


def _inside(folder: Path, name: str, origin: str, depth: int) -> Path:
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise EnvironmentFailed(f"{origin}: {name!r} lies outside of the model's directory")
    if not path.is_file():
        raise EnvironmentFailed(f"{origin}: there is no file {name!r} beside it")
    if depth >= _MAX_DEPTH:
        raise EnvironmentFailed(f"{origin}: its files name each other more than {_MAX_DEPTH} deep")
    return path


def _from_lines(path: Path, python: str) -> Requirements:
    read = _Read()
    read.take(list(logical_lines(_text(path))), path.name, path.parent)
    return read.requirements(path.name, python)


def _from_python_env(path: Path) -> Requirements:
    found = conda.python_env(_yaml(path), path.name)
    read = _Read()
    read.take(found.lines, path.name, path.parent)
    return read.requirements(path.name, found.python)


def _from_conda(path: Path) -> Requirements:
    found = conda.conda_env(_yaml(path), path.name)
    read = _Read()
    read.take(found.lines, path.name, path.parent)
    return read.requirements(path.name, found.python)


def _text(path: Path) -> str:
    content = _content(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise EnvironmentFailed(f"{path.name} is no text in UTF-8 ({problem.reason} at byte {problem.start})") from None


def _yaml(path: Path) -> object:
    try:
        return read_yaml(_content(path), path.name)
    except InvalidInput as problem:
        raise EnvironmentFailed(problem.message) from None


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise EnvironmentFailed(f"{path.name} has {path.stat().st_size} bytes; at most {_MAX_BYTES} are read")
        return path.read_bytes()
    except OSError as problem:
        raise EnvironmentFailed(f"{path.name} cannot be read ({problem.strerror})") from None
