"""`compile: auto`: a model is compiled before it is loaded, once for its content, in the environment it will run in.

The compiling itself is done by a child process (this module, run as a program), so that nothing a model or a converter
does can reach the server, and no model library is imported there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from turnout.core.errors import EnvironmentFailed, Failure
from turnout.deploy.environments.commands import run
from turnout.deploy.environments.worker_path import worker_path
from turnout.deploy.home import home
from turnout.deploy.locks import locked
from turnout.formats import compiled_file

logger = logging.getLogger("turnout")
#: Changes when what is compiled, or how it is proved, changes: what was made before is then made again.
_GENERATION = 1
_REFUSED = "refused.json"
#: Begins the line by which the child says what came of it; whatever libraries print stands on others.
_RESULT = "TURNOUT-COMPILED "
#: What of the way a model is loaded has an effect on what is compiled.
_OPTIONS = ("trust_pickle", "format", "threads", "signature", "example")


def compile_auto(
    artifact: str | Path,
    options: Mapping[str, Any],
    budget_seconds: float = 120.0,
    *,
    python: str = "",
    tell: Callable[[str], None] = logger.info,
) -> Path | None:
    """The compiled form of a model, made now or before; None where there is none, with the reason told.

    options: trust_pickle, format, threads, signature, example (the last two are paths), as for loading. python: the
    interpreter of the model's environment, "" for this one. What was found, good or not, is kept in `home()` under
    the digest of the artifact, of the options and of the machine. Raises nothing: a model that cannot be compiled is
    served as it is.
    """
    path = Path(artifact)
    if not path.exists():
        return None  # a Python reference: there is nothing to convert
    try:
        key = _key(path, options, python)
        place = home() / "compiled" / key
        place.mkdir(parents=True, exist_ok=True)
        with locked(place / "lock"):
            return _known(place, path, tell) or _made(place, path, options, budget_seconds, python, tell)
    except _Refused:
        return None
    except OSError as problem:
        tell(f"{path.name} is served as it is: it cannot be compiled ({problem})")
        return None


class _Refused(Exception):
    """It was tried before, and there is no twin."""


def _key(path: Path, options: Mapping[str, Any], python: str) -> str:
    files = compiled_file.digests(path) if path.is_dir() else {path.name: compiled_file.digest(path)}
    held: dict[str, Any] = {name: options.get(name) for name in _OPTIONS}
    for name in ("signature", "example"):
        if held[name]:
            held[name] = compiled_file.digest(Path(held[name]))
    said = [_GENERATION, files, held, python or sys.executable, compiled_file.this_machine()]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _known(place: Path, path: Path, tell: Callable[[str], None]) -> Path | None:
    target = place / path.name
    if (target / compiled_file.FILE).is_file():
        return target
    refused = place / _REFUSED
    if refused.is_file():
        reasons = json.loads(refused.read_text(encoding="utf-8"))
        tell(f"{path.name} is served as it is, as found before: {_short(reasons)}")
        raise _Refused
    return None


def _made(
    place: Path, path: Path, options: Mapping[str, Any], budget: float, python: str, tell: Callable[[str], None]
) -> Path | None:
    tell(f"compiling {path.name}, which is done once ...")
    target = place / path.name
    asked = {"artifact": str(path.absolute()), "target": str(target), "seconds": min(5.0, budget / 20)}
    asked |= {"options": {name: options[name] for name in _OPTIONS if options.get(name) is not None}}
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONHOME", "VIRTUAL_ENV"} or not python}
    if python:
        environment["PYTHONPATH"] = str(worker_path())
    count = str(options.get("threads") or 1)
    environment |= {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    command = [python or sys.executable, "-m", "turnout.deploy.compile.auto", json.dumps(asked)]
    try:
        ended = run(command, environment, lambda _: None, folder=Path.cwd(), timeout=budget)
    except EnvironmentFailed:
        tell(f"{path.name} is served as it is: it was not compiled within {budget:g} s")
        return None
    told = [line.removeprefix(_RESULT) for line in ended.lines if line.startswith(_RESULT)]
    if not told:
        said = ended.lines[-1] if ended.lines else f"status {ended.code}"
        tell(f"{path.name} is served as it is: compiling it ended the process ({said[:300]})")
        return None
    found = json.loads(told[-1])
    if found["adopted"]:
        tell(f"{path.name} was compiled: {found['summary']}")
        return target
    if found["final"]:
        (place / _REFUSED).write_text(json.dumps(found["reasons"]), encoding="utf-8")
    tell(f"{path.name} is served as it is: {_short(found['reasons'])}")
    return None


def _short(reasons: list[str]) -> str:
    return "; ".join(reason for reason in reasons if not reason.startswith(" "))[:600]


def main() -> None:
    """The child: compiles what its argument says, and prints what came of it as the last line."""
    from turnout.deploy.compile.compiling import CompileOptions, compile_model
    from turnout.deploy.compile.report import summary
    from turnout.deploy.load import load_options
    from turnout.formats.artifact import Artifact

    asked = json.loads(sys.argv[1])
    said = {"trust_pickle": False, "format": None, "threads": 1, "signature": None, "example": None}
    try:
        load = load_options(**{**said, **asked["options"]})
        chosen = CompileOptions(generated=500, thresholds=2000, seconds=asked["seconds"])
        outcome = compile_model(Artifact.of(asked["artifact"]), load, chosen, Path(asked["target"]), lambda _: None)
        found = {"adopted": outcome.adopted, "reasons": outcome.reasons, "final": True, "summary": summary(outcome)}
    except Failure as failure:  # a library that is missing now may be there the next time
        found = {"adopted": False, "reasons": [failure.message], "final": False}
    print(f"\n{_RESULT}{json.dumps(found)}", flush=True)  # noqa: T201  this is what the parent reads


if __name__ == "__main__":
    main()
