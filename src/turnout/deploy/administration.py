"""What a running server is told and asked: load, unload, label, apply, status; over a socket of its user alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnout.core.errors import Failure, InvalidInput, NotReady
from turnout.deploy.home import socket_path
from turnout.deploy.plan import Phase
from turnout.deploy.policy import LABEL, VersionPolicy
from turnout.deploy.spec import ModelSpec
from turnout.deploy.status import status_of
from turnout.deploy.supply import Found, Supply
from turnout.deploy.threads import in_thread
from turnout.deploy.versions import Managed, Versions
from turnout.deploy.watch import Watch
from turnout.deploy.workers import Workers
from turnout.runtime.wire import Message

Question = Mapping[str, Any]
_MAX_LINE = 1 << 20


class Administration:
    """Answers questions about a server and changes what it serves. One JSON object a line, and one in answer."""

    def __init__(
        self, versions: Versions, workers: Workers, supply: Supply, watches: Mapping[str, Watch], template: ModelSpec,
        watch: Callable[[ModelSpec, list[Found]], None],
    ) -> None:  # fmt: skip
        self.problems: dict[str, str] = {}
        self._versions = versions
        self._workers = workers
        self._supply = supply
        self._watches = watches
        self._watch = watch
        self._template = template
        self._loop = asyncio.get_running_loop()
        self._path: Path | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._acts: dict[str, Callable[[Question], Awaitable[Any]]] = {
            "status": self._status,
            "load": self._load,
            "unload": self._unload,
            "label": self._label,
            "apply": self._apply,
        }

    async def listen(self, port: int) -> asyncio.Server | None:
        """Listens on the socket of that port; None where no such socket can be made (a path that is too long)."""
        path = socket_path(port)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()  # of a server that was killed: whoever holds the port is its heir
            server = await asyncio.start_unix_server(self._serve, path, limit=_MAX_LINE)
            path.chmod(0o600)
        except OSError:
            return None
        self._path = path
        return server

    def forget(self) -> None:
        """Takes the socket's file away."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def ask(self, question: Question, answer: Callable[[Message], None]) -> None:
        """Answers in its own time."""

        async def act() -> None:
            answer(await self._answer(question))

        task = asyncio.ensure_future(act())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                try:
                    question = json.loads(line)
                    found = await self._answer(question)
                except ValueError as problem:
                    found = {"failed": "InvalidInput", "message": f"not a JSON object: {problem}"}
                writer.write(json.dumps(found).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, question: Question) -> dict[str, Any]:
        try:
            act = self._acts.get(str(question.get("do")))
            if act is None:
                raise InvalidInput(
                    "unknown", field="do", expected=" or ".join(self._acts), got=repr(question.get("do"))
                )
            return {"answer": await act(question)}
        except Failure as failure:
            return {"failed": type(failure).__name__, "message": failure.message}

    async def _status(self, question: Question) -> Any:
        return status_of(self._versions, self._workers, self._watches, self.problems)

    async def _load(self, question: Question) -> Any:
        """Looks anew at a model's artifact and serves what is there; a new name needs an artifact."""
        name = str(question["model"])
        managed = self._versions.models.get(name)
        spec = replace(self._template, name=name, artifact="") if managed is None else managed.spec
        if question.get("artifact"):
            spec = replace(spec, artifact=str(question["artifact"]))
        if not spec.artifact:
            raise InvalidInput(
                f"failed to load {name!r}: no such model, and no artifact is given",
                field="artifact",
                expected="a path or a URI for a new name",
                example=f"turnout load {name}=model.onnx",
            )
        if question.get("version"):
            spec = replace(spec, versions=_with(spec.versions, managed, str(question["version"])))
        found = await in_thread(self._loop, lambda: self._supply.find(spec))
        managed = self._versions.manage(spec, found)
        self._watch(spec, found)
        self.problems.pop(name, None)
        await self._versions.settled(name)
        failed = [v for v in managed.versions.values() if v.phase is Phase.FAILED and v.found in found]
        if failed:
            raise NotReady(f"failed to load {name!r}: {failed[0].reason}")
        return {"model": name, "versions": list(managed.routing.versions), "default": _number(managed)}

    async def _unload(self, question: Question) -> Any:
        """All versions of a model, or one of them."""
        name = str(question["model"])
        managed = self._versions.known(name)
        version = str(question.get("version") or "")
        if version:
            left = [found for found in managed.found if found.version != version]
            if len(left) == len(managed.found):
                raise InvalidInput("not served", field="version", expected=_names(managed.found), got=repr(version))
            self._versions.manage(managed.spec, left)
        else:
            self._versions.remove(name)
            self._watch(replace(managed.spec, watch=0.0), [])  # or the next change would bring it back
        await self._versions.settled(name)
        gone = managed.gone if not version else {version: managed.gone.get(version, "")}
        return {"model": name, "unloaded": dict(gone)}

    async def _label(self, question: Question) -> Any:
        """A label is moved to a version that is loaded, or taken away where no version is named."""
        managed = self._versions.known(str(question["model"]))
        label, version = str(question["label"]), str(question.get("version") or "")
        if not LABEL.fullmatch(label):
            raise InvalidInput(
                "not a label",
                field="label",
                expected="letters, digits and '_', not beginning with a digit",
                got=repr(label),
            )
        if version and version not in managed.routing.versions:
            raise InvalidInput(
                "a label is only moved to a version that is loaded",
                field="version",
                expected=" or ".join(managed.routing.versions),
                got=repr(version),
            )
        managed.labels.pop(label, None)
        if version:
            managed.labels[label] = version
        self._versions.reconcile(managed)
        await self._versions.settled(managed.spec.name)
        return {"model": managed.spec.name, "labels": dict(managed.labels)}

    async def _apply(self, question: Question) -> Any:
        """Does what a watch has planned."""
        name = str(question["model"])
        managed = self._versions.known(name)
        watch = self._watches.get(name)
        changed = watch is not None and watch.apply()
        await self._versions.settled(name)
        return {"model": name, "changed": changed, "default": _number(managed)}


def _with(policy: VersionPolicy, managed: Managed | None, version: str) -> VersionPolicy:
    """The policy that serves one version more than now."""
    now = [found.version for found in managed.found] if managed is not None and not managed.removed else []
    return replace(policy, kind="specific", versions=tuple(dict.fromkeys([*now, version])))


def _names(found: list[Found]) -> str:
    return " or ".join(one.version for one in found) or "nothing"


def _number(managed: Managed) -> str:
    default = managed.versions.get(managed.routing.default)
    return default.found.version if default else ""
