"""What a model spec names is brought onto this machine: found, fetched, given its environment. All of it blocks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from turnout import formats
from turnout.core.errors import EnvironmentFailed, InvalidInput, LoadFailed, VersionNotFound
from turnout.deploy.environments.environment import IndexPolicy, Requirements
from turnout.deploy.home import home
from turnout.deploy.references import resolved
from turnout.deploy.repository import stamp, versions_in
from turnout.deploy.sources.source import Pinned, Source, SourceSettings
from turnout.deploy.spec import ModelSpec
from turnout.deploy.version import VersionSpec, uid_of
from turnout.formats.artifact import Artifact

if TYPE_CHECKING:
    from turnout.deploy.environments.store import Environments
    from turnout.deploy.sources.cache import ArtifactCache, Fetched

logger = logging.getLogger("turnout")
#: What environments may take on disk before those unused for longest go.
ENVIRONMENTS_BYTES = 50 << 30
#: Told what is being done, in a few words that a person reads.
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A version that could be served. key: tells its content from another of the same name, without reading it all."""

    version: str
    key: str
    path: str = ""
    pinned: Pinned | None = None


class Supply:
    """Finds, fetches and equips versions. Its methods may be called from several threads at once."""

    def __init__(
        self, settings: SourceSettings | None = None, policy: IndexPolicy | None = None, root: Path | None = None
    ) -> None:
        self.settings = settings or SourceSettings()
        self._policy = policy or IndexPolicy()
        self._root = root or home()
        self._held: dict[str, list[Callable[[], None]]] = {}

    @cached_property
    def cache(self) -> ArtifactCache:
        """What was fetched. Made when first needed: a model in a local file pays for nothing of this."""
        from turnout.deploy.sources.cache import ArtifactCache

        return ArtifactCache(self._root / "artifacts")

    @cached_property
    def environments(self) -> Environments:
        """What was built."""
        from turnout.deploy.environments.store import Environments

        return Environments(self._root / "environments", self._policy)

    def find(self, model: ModelSpec, *, fresh: bool = False) -> list[Found]:
        """The versions that a model's artifact stands for now, by its policy. Raises LoadFailed and its kinds.

        Where nobody can be asked, what it last stood for; `fresh` refuses that.
        """
        try:
            return self._find(_resolved(model), fresh=fresh)
        except OSError as problem:  # a directory that may not be read, or that goes away while it is
            raise LoadFailed(f"{model.artifact[:200]} cannot be looked into ({problem.strerror})") from None

    def _find(self, model: ModelSpec, *, fresh: bool) -> list[Found]:
        place, mark = split_signature(model.artifact)
        source = _source(place)
        if source is not None:
            pinned, stale = self.cache.resolve(place, self.settings, fresh=fresh)
            if stale:
                logger.warning("%s: %s; serving %s, which was there last", model.name, stale, pinned.pinned)
            return [Found(model.version or pinned.version or "1", pinned.pinned, pinned=pinned)]
        artifact = Artifact.of(model.artifact)
        if artifact.is_reference or artifact.path is None:
            return [Found(model.version or "1", model.artifact, model.artifact)]
        mark = f"#{artifact.fragment}" if artifact.fragment else ""
        versions = versions_in(artifact.path)
        if versions is None and artifact.path.is_dir() and not any(artifact.path.iterdir()):
            raise LoadFailed(f"{artifact.label} is an empty directory")
        if versions is None:
            return [Found(model.version or "1", stamp(artifact.path), model.artifact)]
        if missing := model.versions.missing(versions):
            raise VersionNotFound(
                f"{artifact.label} has no version {', '.join(missing)}; there is {', '.join(versions)}"
            )
        return [
            Found(name, stamp(versions[name]), f"{versions[name]}{mark}") for name in model.versions.choose(versions)
        ]

    def local(self, uri: str, tell: Tell) -> str:
        """The path of one artifact, fetched where it is a URI; it stays while this process lives."""
        place, mark = split_signature(uri)
        return uri if _source(place) is None else f"{self._fetch(place, tell).path}{mark}"

    def _hold(self, uid: str, let_go: Callable[[], None]) -> None:
        # Looked up each time: a version that is unloaded while it is prepared is released before, and once more after.
        self._held.setdefault(uid, []).append(let_go)

    def release(self, uid: str) -> None:
        """Says that a version is not needed any more: what it has used may be evicted."""
        for let_go in self._held.pop(uid, []):
            let_go()

    def resume(self, spec: VersionSpec) -> None:
        """Keeps from being evicted what a version uses that has been loaded by a controller before this one."""
        if spec.pinned and self.cache.hold(spec.digest):
            self._hold(spec.uid, partial(self.cache.release, spec.digest))
        if spec.environment:
            with suppress(EnvironmentFailed):
                environment = self.environments.find(spec.environment)
                self._hold(spec.uid, self.environments.hold(environment).close)

    def prepare(self, model: ModelSpec, found: Found, generation: int, tell: Tell) -> VersionSpec:
        """A version ready to be loaded. Raises LoadFailed and its kinds."""
        model, path, digest = _resolved(model), found.path, ""
        uid = uid_of(model.name, found.version, generation)
        if found.pinned is not None:
            fetched = self._fetch(found.pinned.pinned, tell, self._ahead(model, found.pinned, tell))
            path, digest = f"{_inside(fetched.path, model)}{split_signature(model.artifact)[1]}", fetched.digest
            self._hold(uid, partial(self.cache.release, digest))
        self._check_door(model, path)
        environment = self._environment(model, path, tell, uid)
        python, name = environment or ("", "")
        if python and model.place == "inline":
            raise InvalidInput(
                "a model with an environment of its own cannot run inside the router",
                field="place",
                expected="worker, or environment: none",
                got="inline",
            )
        if model.compile == "auto":
            path = self._compiled(model, path, python, tell)
        return VersionSpec(
            model.name,
            path,
            found.version,
            generation,
            digest,
            found.pinned.pinned if found.pinned else "",
            python,
            name,
            model.format,
            model.trust_pickle,
            model.place,
            model.replicas,
            model.threads,
            model.signature,
            model.example,
            model.batching,
        )

    @staticmethod
    def _check_door(model: ModelSpec, path: str) -> None:
        """Raises LoadFailed for what nobody recognises, and for what only batches can be predicted with."""
        found = formats.detect(Artifact.of(path), formats.LoadOptions(format=model.format))
        if reason := getattr(found, "batch_only", ""):
            raise LoadFailed(f"{model.name} cannot be served: {reason}")

    def digest(self, path: str) -> str:
        """The digest of what lies at a local path; "" for a Python reference."""
        from turnout.deploy.sources.manifest import manifest_of

        artifact = Artifact.of(path)
        if artifact.is_reference or artifact.path is None:
            return ""
        return manifest_of(artifact.path).digest

    def _ahead(self, model: ModelSpec, pinned: Pinned, tell: Tell) -> Callable[[], None]:
        """What is called while files arrive, so that the environment need not wait for the last of them."""
        if model.environment == "none" or self._interpreter(model) or pinned.unpack:
            return _nothing
        from turnout.deploy.ahead import Ahead

        ahead = Ahead(self.environments, self.cache.arriving(pinned), tell)
        requirements = self._requirements(model, Path())
        if requirements is not None:
            ahead.begin(requirements)
        return ahead.look

    def _fetch(self, uri: str, tell: Tell, look: Callable[[], None] | None = None) -> Fetched:
        def progress(what: str, done: int, total: int) -> None:
            if look is not None:
                look()
            share = f" of {total / 2**20:.1f}" if total else ""
            tell(f"fetching {what}: {done / 2**20:.1f}{share} MiB")

        return self.cache.fetch(uri, self.settings, progress)

    def _environment(self, model: ModelSpec, path: str, tell: Tell, uid: str) -> tuple[str, str] | None:
        """The interpreter and the digest of a version's environment; None for the server's own."""
        if interpreter := self._interpreter(model):
            return interpreter, ""
        requirements = self._requirements(model, Artifact.of(path).path or Path())
        if requirements is None:
            return None
        built = self.environments.ensure(requirements, tell)
        self._hold(uid, self.environments.hold(built).close)
        self.environments.evict(ENVIRONMENTS_BYTES)
        return str(built.python), built.digest

    @staticmethod
    def _interpreter(model: ModelSpec) -> str:
        """The interpreter that the user names, "" where that is not what the environment is."""
        said = model.environment
        return said if isinstance(said, str) and _is_interpreter(Path(said)) else ""

    @staticmethod
    def _requirements(model: ModelSpec, path: Path) -> Requirements | None:
        """What the spec or the artifact asks for; an empty path for what can be said before that is there."""
        said = model.environment
        if said == "none" or (said == "auto" and (path == Path() or not path.is_dir())):
            return None  # only what lies inside the artifact speaks for it: a file's neighbours may be anybody's
        from turnout.deploy.environments.requirements import requirements_of

        return requirements_of(path, None if said == "auto" else Path(said) if isinstance(said, str) else said)

    def _compiled(self, model: ModelSpec, path: str, python: str, tell: Tell) -> str:
        from turnout.deploy.compile import compile_auto  # brings converters' names, which most servers never need

        said = ("threads", "trust_pickle", "format", "signature", "example")
        options = {name: getattr(model, name) for name in said}
        made = compile_auto(path, options, python=python, tell=tell)
        return path if made is None else str(made)


def _source(artifact: str) -> Source | None:
    """Who fetches it; None for a local path or a Python reference."""
    if ":" not in artifact:
        return None
    from turnout.deploy.sources import source_of

    return source_of(artifact)


def split_signature(artifact: str) -> tuple[str, str]:
    """A URI, and the `#NAME` behind it that chooses one of a model's signatures; "" where there is none.

    What has a `=` behind the `#` belongs to the URI itself, and so does the id by which MLflow knows a model.
    """
    place, mark, name = artifact.rpartition("#")
    if not mark or "=" in name or ":" not in place or place.startswith(("models:", "runs:")):
        return artifact, ""
    return place, f"#{name}"


def _nothing() -> None:
    """Is called while files arrive, where nothing can be done meanwhile."""


def _is_interpreter(path: Path) -> bool:
    return path.name.startswith(("python", "pypy")) and path.is_file() and os.access(path, os.X_OK)


def _resolved(model: ModelSpec) -> ModelSpec:
    """The model with what the environment says for the references in its address, at this moment."""
    return replace(model, artifact=resolved(model.artifact, "artifact")) if "${" in model.artifact else model


def _inside(path: Path, model: ModelSpec) -> Path:
    """What was fetched, or the newest of the chosen versions in it where it is a repository of versions."""
    versions = versions_in(path)
    if versions is None:
        return path
    chosen = model.versions.choose(versions)
    if not chosen:
        raise LoadFailed(f"{model.artifact} has none of the versions {model.versions}; there is {', '.join(versions)}")
    return versions[chosen[-1]]
