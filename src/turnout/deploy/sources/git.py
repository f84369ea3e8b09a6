"""`git+https:`, `git+ssh:` and `git+file:` URIs, by the git command; no file is checked out, none of them is run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from turnout.core.errors import LoadFailed, MissingExtra, SourceFailed
from turnout.deploy.sources.addresses import connectable, is_listed
from turnout.deploy.sources.fragments import joined, parted, split
from turnout.deploy.sources.manifest import check_names
from turnout.deploy.sources.source import Pinned, Progress, SourceMoved, SourceSettings, check_size
from turnout.deploy.trees import remove_tree, size_of

_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_REF = re.compile(r"[A-Za-z0-9_./@{}+=#~^-]{1,250}\Z")
_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_REPOSITORY = ".turnout-git"
_CHUNK_BYTES = 1 << 20
_PASSING = re.compile(
    r"could not resolve|couldn't connect|failed to connect|timed out|timeout|connection (?:refused|reset|closed)"
    r"|early eof|hung up|returned error: (?:429|5\d\d)|too slow|unexpected disconnect",
    re.IGNORECASE,
)


class GitSource:
    """Pins a branch or tag to its commit. Submodules are left out; links and LFS pointers are refused.

    `#subdirectory=PATH` takes a part of the repository: a directory, or one file.
    """

    name = "git"
    schemes = ("git+https", "git+ssh", "git+file")
    extra = ""
    resumes = False
    retries = False

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        wanted = _Wanted.of(uri)
        commit = wanted.ref if _COMMIT.match(wanted.ref) else self._commit(wanted, settings)
        more = {"subdirectory": wanted.subdirectory} if wanted.subdirectory else {}
        pinned = joined(f"git+{wanted.url}@{commit}", more)
        return Pinned(uri, pinned, version=commit, facts={"ref": wanted.ref})

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        wanted = _Wanted.of(pinned.pinned)
        repository = into / _REPOSITORY
        git = _Git(wanted, settings, repository)
        try:
            git.run("init", "--quiet", "--bare", "--template=", str(repository))
            ref = str(pinned.facts.get("ref", ""))
            self._get(git, wanted, "" if ref == wanted.ref else ref, progress)
            _export(git, wanted, into, settings, progress)
        finally:
            remove_tree(repository)

    def _commit(self, wanted: _Wanted, settings: SourceSettings) -> str:
        """The commit that a branch, tag or other ref stands for now."""
        git = _Git(wanted, settings)
        ref = wanted.ref or "HEAD"
        names = [ref] if ref == "HEAD" or ref.startswith("refs/") else [f"refs/tags/{ref}", f"refs/heads/{ref}"]
        asked = [*names, *(f"{name}^{{}}" for name in names)]
        found: dict[str, str] = {}
        for line in git.run("ls-remote", "--quiet", "--", wanted.url, *asked).decode(errors="replace").splitlines():
            commit, _, name = line.partition("\t")
            found[name] = commit
        for name in (f"{name}{end}" for name in names for end in ("^{}", "")):  # a tag's commit before it
            if _COMMIT.match(found.get(name, "")):
                return found[name]
        raise SourceFailed(f"the repository {wanted.url} has no branch or tag {ref!a} (a commit is named in full)")

    def _get(self, git: _Git, wanted: _Wanted, ref: str, progress: Progress) -> None:
        """One commit without its history; by the name it had where the server does not give commits by themselves."""
        words = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--")
        try:
            git.run(*words, wanted.url, wanted.ref, progress=progress)
        except SourceFailed as problem:
            if problem.retryable or not ref:
                raise
            git.run(*words, wanted.url, f"+{ref}:refs/turnout/fetched", progress=progress)
        if git.run("cat-file", "-t", wanted.ref, check=False).strip() != b"commit":
            raise SourceMoved(f"{wanted.url} no longer gives the commit {wanted.ref[:12]}; {ref or 'it'} has moved on")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a URI says: the repository (without "git+"), the ref ("" for its default), the part ("" for all of it)."""

    url: str
    ref: str
    subdirectory: str

    @classmethod
    def of(cls, uri: str) -> _Wanted:
        bare, said = parted(uri)
        if unknown := said.keys() - {"subdirectory"}:
            raise SourceFailed(f"#{min(unknown)} means nothing for a git repository; #subdirectory=PATH does")
        if not bare.startswith("git+"):
            raise SourceFailed(f"{bare!a} does not begin with git+")
        # The last @ behind the host begins the ref; one before the host ends a user's name.
        scheme, _, rest = bare.removeprefix("git+").partition("://")
        host, slash, path = rest.partition("/")
        path, _, ref = path.rpartition("@") if "@" in path else (path, "", "")
        url = f"{scheme.lower()}://{host}{slash}{path}"
        if host.startswith("-") or "@-" in host or not path or not url.isprintable() or " " in url:
            raise SourceFailed(f"{bare!a} is not of the form git+https://HOST/PATH@REF")
        if ":" in host.rpartition("@")[0]:
            raise SourceFailed("the URI has a password in it; git's own credential helpers keep passwords")
        if ref and (ref.startswith(("-", "+", "/")) or ".." in ref or "@{" in ref or not _REF.match(ref)):
            raise SourceFailed(f"{ref[:100]!a} is no name of a branch, tag or commit")
        subdirectory = said.get("subdirectory", "").strip("/")
        if subdirectory:
            try:
                check_names([subdirectory])
            except LoadFailed:
                raise SourceFailed(f"#subdirectory={subdirectory[:100]!a} is no path inside a repository") from None
        return cls(url, ref, subdirectory)


class _Git:
    """The git command for one repository. argv only; no prompt, no hook, no protocol but the one that was asked for."""

    def __init__(self, wanted: _Wanted, settings: SourceSettings, repository: Path | None = None) -> None:
        self._url, self._settings, self._repository = wanted.url, settings, repository
        parts = split(wanted.url)
        seconds = str(max(1, round(settings.timeout)))
        config = {
            "protocol.allow": "never",
            f"protocol.{parts.scheme}.allow": "always",
            "protocol.version": "2",
            "core.hooksPath": os.devnull,
            "core.fsmonitor": "false",
            "http.proxy": "",
            "submodule.recurse": "false",
            "gc.auto": "0",
            "http.followRedirects": "false",
            "http.lowSpeedLimit": "1000",
            "http.lowSpeedTime": seconds,
        }
        if parts.scheme == "https":
            config.update(_checked_host(parts.hostname or "", parts.port or 443, settings))
        self._config = [word for name, value in config.items() for word in ("-c", f"{name}={value}")]
        ssh = f"ssh -oBatchMode=yes -oConnectTimeout={seconds} -oServerAliveInterval=15 -oServerAliveCountMax=4"
        self._environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_NO_LAZY_FETCH": "1"}
        self._environment.setdefault("GIT_SSH_COMMAND", ssh)
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_EXTERNAL_DIFF"):
            self._environment.pop(name, None)  # of whoever started us from within a repository

    def start(self, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """A running git."""
        where = [f"--git-dir={self._repository}"] if self._repository and words[0] != "init" else []
        return subprocess.Popen(
            [_program(), *where, *self._config, *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for us, and a time-out ends its children too
        )

    def run(self, *words: str, progress: Progress | None = None, check: bool = True) -> bytes:
        """What git prints. While it fetches, what arrives is counted, and ended where it is too much."""
        process = self.start(*words)
        ended = threading.Event()
        refused: list[SourceFailed] = []

        def watch() -> None:
            while progress is not None and not ended.wait(0.25):
                size = size_of(self._repository).nbytes if self._repository else 0
                progress(f"git {words[0]}", size, 0)
                if size > self._settings.max_artifact_bytes:
                    try:
                        check_size(size, self._settings.max_artifact_bytes)
                    except SourceFailed as problem:
                        refused.append(problem)
                    _end(process)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            out, error = process.communicate(timeout=None if progress else self._settings.timeout)
        except subprocess.TimeoutExpired:
            raise SourceFailed(f"git {words[0]} of {self._url}: no answer in time", retryable=True) from None
        finally:
            ended.set()
            _end(process)
            watcher.join()
        if refused:
            raise refused[0]
        if process.returncode and check:
            said = " ".join(error.decode(errors="replace").split())[-400:]
            retryable = bool(_PASSING.search(said))
            raise SourceFailed(f"git {words[0]} of {self._url} failed: {said}", retryable=retryable)
        return out


def _program() -> str:
    found = shutil.which("git")
    if found is None:
        raise MissingExtra("git+...: needs the command git, which is not installed")
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends it and its children, if they have not ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _checked_host(host: str, port: int, settings: SourceSettings) -> Mapping[str, str]:
    """Has git connect to the address that was checked, whatever the name says a moment later."""
    where = connectable(host, port, listed=is_listed(host, port, settings.allowed_hosts))
    addresses = ",".join(f"[{address}]" if ":" in address else address for _, (address, _) in where)
    return {"http.curloptResolve": f"{host}:{port}:{addresses}"}


def _export(git: _Git, wanted: _Wanted, into: Path, settings: SourceSettings, progress: Progress) -> None:
    """Writes the files of a commit as they are stored: no attribute, smudge filter or line ending has a say."""
    files = list(_listing(git, wanted))
    if not files:
        raise SourceFailed(f"there is no file {wanted.subdirectory!a} in {wanted.url} at {wanted.ref[:12]}")
    check_names([*(name for name, _, _ in files), _REPOSITORY])
    total = sum(size for _, _, size in files)
    check_size(total, settings.max_artifact_bytes)
    process = git.start("cat-file", "--batch", stdin=subprocess.PIPE)
    done = 0
    try:
        if process.stdin is None or process.stdout is None:
            raise SourceFailed("git gives no answer")
        for name, blob, size in files:
            process.stdin.write(f"{blob}\n".encode())
            process.stdin.flush()
            if process.stdout.readline() != f"{blob} blob {size}\n".encode():
                raise SourceFailed(f"{wanted.url} has lost the content of {name!a}")
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                for chunk in _exactly(process.stdout, size):
                    if size < 1024 and chunk.startswith(_LFS):
                        raise SourceFailed(
                            f"{name!a} is a pointer of Git LFS, not the file itself, and nothing is fetched from LFS. "
                            "Give the URI of the place where the file is"
                        )
                    file.write(chunk)
                    done += len(chunk)
            process.stdout.read(1)
            progress(name, done, total)
    finally:
        _end(process)


def _listing(git: _Git, wanted: _Wanted) -> Iterator[tuple[str, str, int]]:
    """Name, blob and size of each file of the part that is wanted."""
    words = ["--", wanted.subdirectory] if wanted.subdirectory else []
    cut = f"{wanted.subdirectory}/" if wanted.subdirectory else ""
    for line in git.run("ls-tree", "-r", "-z", "--long", "--full-tree", wanted.ref, *words).split(b"\x00"):
        if not line:
            continue
        told, _, raw = line.partition(b"\t")
        mode, kind, blob, size = told.decode().split()
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            raise SourceFailed(f"{wanted.url} has a file called {raw[:100]!r}, which is not UTF-8") from None
        if mode == "120000":
            raise SourceFailed(f"{wanted.url} has a symbolic link, {name!a}; links are not followed")
        if kind == "blob":
            name = name.removeprefix(cut) if name.startswith(cut) else name.rpartition("/")[2]
            yield name, blob, int(size)


def _exactly(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise SourceFailed("git ended in the middle of a file", retryable=True)
        size -= len(chunk)
        yield chunk
