"""What a running server is told and asked: load, unload, label, apply, status; over a socket of its user alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnout.core.errors import Conflict, Failure, InvalidInput, NotReady
from turnout.deploy.home import socket_path
from turnout.deploy.managed import Managed
from turnout.deploy.plan import Phase
from turnout.deploy.policy import LABEL, VersionPolicy
from turnout.deploy.spec import ModelSpec
from turnout.deploy.status import status_of
from turnout.deploy.supply import Found, Supply
from turnout.deploy.threads import in_thread
from turnout.deploy.versions import Versions
from turnout.deploy.watch import Watch
from turnout.deploy.workers import Workers
from turnout.runtime.wire import Message

logger = logging.getLogger("turnout")
Question = Mapping[str, Any]
Act = Callable[[Question], Awaitable[Any]]
#: A document of the largest size, each character of which is written as an escape.
_MAX_LINE = 8 << 20
_CROWD = 1024
_LEFT_OVER_SECONDS = 5.0


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
        self._inode = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._acts: dict[str, Act] = {
            "status": self._status,
            "load": self._load,
            "unload": self._unload,
            "label": self._label,
            "apply": self._apply,
        }

    def offer(self, acts: Mapping[str, Act], check: Callable[[Question], Question]) -> None:
        """Does these acts too; `check` gives the question of a caller who has the right token."""
        self._acts |= acts

        async def admin(question: Question) -> Any:
            inner = check(question)
            return await self._act(inner)(inner)

        self._acts["admin"] = admin

    def _act(self, question: Question) -> Act:
        do = question.get("do")
        act = self._acts.get(do) if isinstance(do, str) else None
        if act is None:
            raise InvalidInput("unknown", field="do", expected=" or ".join(self._acts), got=repr(do)[:60])
        return act

    async def listen(self, port: int) -> asyncio.Server | None:
        """Listens on the socket of that port; None, with a warning, where none can be made (its path is too long)."""
        path = socket_path(port)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()  # of a server that was killed: whoever holds the port is its heir
            server = await asyncio.start_unix_server(self._begin, path, limit=_MAX_LINE, backlog=_CROWD)
            path.chmod(0o600)
            self._inode = path.stat().st_ino
        except OSError as problem:
            logger.warning("`turnout status` and its like cannot reach this server: %s: %s", path, problem)
            return None
        self._path = path
        return server

    def forget(self) -> None:
        """Takes the socket's file away, unless another server has the port by now, and lets go of who asks."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()
        for task in self._tasks:
            task.cancel()

    def ask(self, question: Question, answer: Callable[[Message], None]) -> None:
        """Answers in its own time."""

        async def act() -> None:
            answer(await self._answer(question))

        self._run(act())

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._run(self._serve(reader, writer))

    def _run(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(act)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(_question(line))).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass  # it went away
        except ValueError:
            failure = {"failed": "InvalidInput", "message": f"a question has at most {_MAX_LINE} bytes"}
            with contextlib.suppress(OSError, TimeoutError):
                writer.write(json.dumps(failure).encode() + b"\n")
                async with asyncio.timeout(_LEFT_OVER_SECONDS):  # who still writes would not see the answer
                    while await reader.read(_MAX_LINE):
                        pass
        finally:
            writer.close()

    async def _answer(self, question: Question | None) -> dict[str, Any]:
        try:
            if question is None:
                raise InvalidInput("not a JSON object")
            _check_text(question)
            return {"answer": await self._act(question)(question)}
        except Failure as failure:
            return {"failed": type(failure).__name__, "message": failure.message}
        except Exception:  # whoever asks waits for an answer, whatever broke
            logger.exception("a question could not be answered")
            return {"failed": "Failure", "message": "the server failed on this question; its log says why"}

    async def _status(self, question: Question) -> Any:
        return status_of(self._versions, self._workers, self._watches, self.problems)

    async def _load(self, question: Question) -> Any:
        """Looks anew at a model's artifact and serves what is there; a new name needs an artifact."""
        name = _word(question, "model")
        async with self._loading[name]:  # each of several sees what the one before it has made of the model
            managed, found = await self._look(name, _word(question, "artifact", ""), _word(question, "version", ""))
        await self._versions.settled(name)
        here = [version for version in managed.versions.values() if version.found in found]
        failed = [version.reason for version in here if version.phase is Phase.FAILED]
        if failed:
            raise NotReady(f"failed to load {name!r}: {failed[0]}")
        if found and not here:
            raise NotReady(f"failed to load {name!r}: something else was asked for in the meantime")
        return {"model": name, "versions": list(managed.routing.versions), "default": _number(managed)}

    async def _look(self, name: str, artifact: str, version: str) -> tuple[Managed, list[Found]]:
        """Finds what a model stands for now, and has that served."""
        managed = self._versions.models.get(name)
        _check_model(managed)
        spec = replace(self._template, name=name, artifact="") if managed is None else managed.spec
        if artifact:
            spec = replace(spec, artifact=artifact)
        if not spec.artifact:
            raise InvalidInput(
                f"failed to load {name!r}: no such model, and no artifact is given",
                field="artifact",
                expected="a path or a URI for a new name",
                example=f"turnout load {name}=model.onnx",
            )
        if version:
            spec = replace(spec, versions=_with(spec.versions, managed, version))
        found = await in_thread(self._loop, lambda: self._supply.find(spec))
        managed = self._versions.manage(spec, found, again=True)
        self._watch(spec, found)
        self.problems.pop(name, None)
        return managed, found

    async def _unload(self, question: Question) -> Any:
        """All versions of a model, or one of them."""
        name, version = _word(question, "model"), _word(question, "version", "")
        managed = self._versions.known(name)
        _check_model(managed)
        wanted = [] if managed.removed else managed.found
        left = [found for found in wanted if version and found.version != version]
        if version and len(left) == len(wanted):
            raise InvalidInput("not served", field="version", expected=_names(wanted), got=repr(version))
        self._check_unused(managed, left)
        if left:
            self._versions.manage(managed.spec, left)
        else:
            self._versions.remove(name)
            self._watch(replace(managed.spec, watch=0.0), [])  # or the next change would bring it back
        await self._versions.settled(name)
        gone = managed.gone if not version else {version: managed.gone.get(version, "")}
        return {"model": name, "unloaded": dict(gone)}

    def _check_unused(self, managed: Managed, left: list[Found]) -> None:
        """Raises Conflict where graphs of endpoints would lose what they are made of."""
        name = managed.spec.name
        there = {found.version for found in left}
        for path, used in self._versions.used_at(name):
            version = managed.labels.get(used, used)
            if (version and version not in there) or not there:
                raise Conflict(
                    f"{name!r} is used at {path}: apply a document in which it is not (turnout apply turnout.yaml)"
                )

    async def _label(self, question: Question) -> Any:
        """A label is moved to a version that is loaded, or taken away where no version is named."""
        managed = self._versions.known(_word(question, "model"))
        _check_model(managed)
        label, version = _word(question, "label"), _word(question, "version", "")
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
        await self._versions.settled("")  # what else is under way may take long
        return {"model": managed.spec.name, "labels": dict(managed.labels)}

    async def _apply(self, question: Question) -> Any:
        """Does what a watch has planned."""
        name = _word(question, "model")
        managed = self._versions.known(name)
        _check_model(managed)
        watch = self._watches.get(name)
        changed = watch is not None and watch.apply()
        if changed:
            await self._versions.settled(name)
        return {"model": name, "changed": changed, "default": _number(managed)}


def _check_model(managed: Managed | None) -> None:
    """Raises InvalidInput for an endpoint: what it serves is a revision, and changes as a whole."""
    if managed is not None and managed.guide is not None:
        raise InvalidInput(
            f"{managed.spec.name!r} is an endpoint",
            field="model",
            expected="a model that is served by itself; endpoints change with their document",
            example="turnout apply turnout.yaml",
        )


def _check_text(question: Question) -> None:
    """Raises InvalidInput for what could be neither stored nor shown."""
    try:
        json.dumps(question, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidInput("a text in it is no Unicode: half of a surrogate pair", field="question") from None
    except RecursionError:
        raise InvalidInput("nested too deeply", field="question") from None


def _question(line: bytes) -> Question | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _word(question: Question, key: str, default: str | None = None) -> str:
    """A text in a question. Raises InvalidInput where it is missing or something else."""
    found = question.get(key)
    if found is None or found == "":
        found = default
    if not isinstance(found, str):
        raise InvalidInput("must be text", field=key, got="nothing" if found is None else repr(found)[:60])
    return found


def _with(policy: VersionPolicy, managed: Managed | None, version: str) -> VersionPolicy:
    """The policy that serves one version more than now."""
    now = [found.version for found in managed.found] if managed is not None and not managed.removed else []
    return replace(policy, kind="specific", versions=tuple(dict.fromkeys([*now, version])))


def _names(found: list[Found]) -> str:
    return " or ".join(one.version for one in found) or "nothing"


def _number(managed: Managed) -> str:
    default = managed.versions.get(managed.routing.default)
    return default.found.version if default else ""
