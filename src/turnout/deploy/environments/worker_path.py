"""How a worker in an environment of its own finds this package, and nothing else of the server's."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import turnout
from turnout.core.errors import EnvironmentFailed
from turnout.deploy.home import home


def worker_path() -> Path:
    """A directory for a worker's PYTHONPATH: in it, `turnout` and nothing else can be imported.

    The server's own packages stay out of sight, so a model meets exactly the versions it asked for. Made when it
    is first asked for, by whichever process comes first. Raises EnvironmentFailed if it cannot be made.
    """
    package = Path(turnout.__file__).resolve().parent
    folder = home() / "worker" / hashlib.sha256(os.fsencode(package)).hexdigest()[:20]
    link = folder / package.name
    with contextlib.suppress(OSError):
        if link.readlink() == package:
            return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = folder.parent / f".{folder.name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            made.unlink()
        made.symlink_to(package, target_is_directory=True)
        made.replace(link)
    except OSError as problem:
        raise EnvironmentFailed(
            f"{folder} cannot be made ({problem.strerror}); say with TURNOUT_HOME where Turnout may keep its files"
        ) from None
    return folder
