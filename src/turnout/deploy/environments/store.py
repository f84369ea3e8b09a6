"""The environments of this machine: each built once, found again by what is in it, removed when long unused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.build import NUMPY, Build, build, check, python_of
from turnout.deploy.environments.environment import Environment, IndexPolicy, Requirements, Tell
from turnout.deploy.environments.inventory import packages
from turnout.deploy.environments.lines import name_of
from turnout.deploy.environments.locks import Hold, alone, share
from turnout.deploy.environments.pythons import Python, find_python
from turnout.deploy.trees import remove_tree, size_of, write_durably

_MARK = "turnout-environment.json"
_SCHEMA = 1


def _nobody(line: str) -> None:
    """Hears what is told when nobody asked to."""


class Environments:
    """The environments below `root`, built as `policy` allows. Used by several processes at the same time."""

    def __init__(self, root: Path, policy: IndexPolicy | None = None, *, build_timeout: float = 3600.0) -> None:
        self.root = root.absolute()
        self.policy = policy or IndexPolicy()
        self._build_timeout = build_timeout

    def ensure(
        self, requirements: Requirements, tell: Tell = _nobody, cancelled: Callable[[], bool] = lambda: False
    ) -> Environment:
        """The environment for these requirements, built if it is not there; blocks until it is.

        Several processes that ask for the same build it once. `cancelled` is asked every tenth of a second while it
        builds or waits. Raises EnvironmentFailed with the installer's reason; nothing half-built is left.
        """
        check(requirements, self.policy, tell)
        python = find_python(requirements.python, requirements.origin)
        digest = digest_of(requirements, python, self.policy)
        found = self._read(digest)
        if found is None:
            try:
                found = self._build(digest, requirements, python, tell, cancelled)
            except OSError as problem:
                raise EnvironmentFailed(
                    f"the environment cannot be built in {self.root}: {problem.strerror or problem}; if that directory "
                    "cannot be written to, set TURNOUT_HOME to one that can"
                ) from None
        with suppress(OSError):
            os.utime(self._path(digest))
        return found

    def hold(self, environment: Environment) -> Hold:
        """Keeps it from being removed until closed, or until this process ends. Raises EnvironmentFailed if gone."""
        hold = share(self._lock(environment.digest), self._path(environment.digest))
        if self._read(environment.digest) is None:
            hold.close()
            raise EnvironmentFailed(f"the environment {environment.digest} was removed; ask for it again")
        return hold

    def find(self, beginning: str) -> Environment:
        """The one finished environment whose digest begins so. Raises EnvironmentFailed for none and for several."""
        found = [one for one in self.entries() if beginning and one.digest.startswith(beginning)]
        if len(found) != 1:
            known = ", ".join(one.digest for one in found or self.entries()) or "none at all"
            raise EnvironmentFailed(
                f"{'several environments begin' if found else 'no environment begins'} with {beginning!r}: {known}"
            )
        return found[0]

    def entries(self) -> list[Environment]:
        """All finished environments, the one used last first."""
        found = (self._read(digest) for digest in self._digests())
        return sorted((one for one in found if one is not None), key=lambda one: -one.used)

    def remove(self, digest: str) -> bool:
        """Removes one; False if it is in use. Raises EnvironmentFailed if there is none of that name."""
        if digest not in self._digests():
            raise EnvironmentFailed(f"there is no environment {digest}")
        with alone(self._lock(digest)) as ours:
            if ours is not None:
                self._discard(digest)
        return ours is not None

    def evict(self, max_bytes: int, in_use: Collection[str] = ()) -> list[Environment]:
        """Removes those unused for longest until all together take at most `max_bytes`; says which it removed.

        None that a living process holds, and none of the digests `in_use`.
        """
        self.sweep()
        kept = self.entries()
        total = sum(one.nbytes for one in kept)
        removed = []
        for one in reversed(kept):
            if total <= max_bytes:
                break
            if one.digest not in in_use and self.remove(one.digest):
                total -= one.nbytes
                removed.append(one)
        return removed

    def sweep(self) -> None:
        """Removes what a build that was killed has left."""
        for digest in self._digests():
            if not self._mark(digest).is_file():
                with alone(self._lock(digest)) as ours:
                    if ours is not None and not self._mark(digest).is_file():
                        self._discard(digest)

    def _build(
        self, digest: str, requirements: Requirements, python: Python, tell: Tell, cancelled: Callable[[], bool]
    ) -> Environment:
        said = False

        def waiting() -> None:
            nonlocal said
            if not said:
                tell(f"waiting for another process that builds the environment {digest}")
                said = True
            if cancelled():
                raise EnvironmentFailed("waiting for the environment was cancelled")

        with alone(self._lock(digest), waiting) as lock:
            found = self._read(digest)
            if found is not None:
                return found
            self.sweep()
            path = self._path(digest)
            self._discard(digest)
            tell(f"building the environment {digest} of {requirements.origin} with Python {python.version}")
            began = time.monotonic()
            how = Build(tell, self._build_timeout, cancelled, (lock,) if lock is not None else ())
            try:
                build(path, python, requirements, self.policy, how)
                self._finish(digest, requirements, python)
            finally:
                if not self._mark(digest).is_file():
                    self._discard(digest)
            tell(f"built the environment {digest} in {time.monotonic() - began:.1f} s")
        found = self._read(digest)
        if found is None:
            raise EnvironmentFailed(f"the environment {digest} does not run although it was built")
        return found

    def _finish(self, digest: str, requirements: Requirements, python: Python) -> None:
        """Writes the mark that says it is whole; the last step."""
        path = self._path(digest)
        size = size_of(path)
        facts = {
            "schema": _SCHEMA,
            "origin": requirements.origin,
            "lines": requirements.lines,
            "python": python.version,
            "packages": packages(path),
            "nbytes": size.nbytes,
            "shared_bytes": size.shared_bytes,
        }
        write_durably(self._mark(digest), facts)

    def _read(self, digest: str) -> Environment | None:
        path = self._path(digest)
        try:
            facts: dict[str, Any] = json.loads(self._mark(digest).read_bytes())
            if facts["schema"] != _SCHEMA or not python_of(path).exists():  # its Python was uninstalled
                return None
            return Environment(
                digest,
                path,
                python_of(path),
                facts["origin"],
                facts["packages"],
                facts["nbytes"],
                facts["shared_bytes"],
                self._mark(digest).stat().st_mtime,
                path.stat().st_mtime,
                tuple(facts["lines"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _digests(self) -> list[str]:
        with suppress(FileNotFoundError):
            return sorted(entry.name for entry in self.root.iterdir() if re.fullmatch(r"[0-9a-f]{20}", entry.name))
        return []

    def _path(self, digest: str) -> Path:
        return self.root / digest

    def _mark(self, digest: str) -> Path:
        return self._path(digest) / _MARK

    def _lock(self, digest: str) -> Path:
        return self.root / ".locks" / digest

    def _discard(self, digest: str) -> None:
        with suppress(FileNotFoundError):
            self._mark(digest).unlink()  # first, so that what is left of it is nothing
        remove_tree(self._path(digest))


def digest_of(requirements: Requirements, python: Python, policy: IndexPolicy) -> str:
    """The name of the environment: by what may make a difference to what is in it.

    Where every file is fixed by its hash, it does not matter where the files come from.
    """
    places: list[object] = []
    if not requirements.hashed or NUMPY not in map(name_of, requirements.lines):
        places = [
            policy.index_urls,
            policy.public,
            [str(folder.absolute()) for folder in policy.wheels],
            policy.offline,
        ]
    facts = [
        _SCHEMA,
        requirements.lines,
        requirements.constraints,
        [str(python.program), python.version, python.tag, python.platform],
        places,
        policy.source_builds,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
