"""Models of the Hugging Face hub, or of a mirror that speaks as it does. The only file that speaks to it."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.download import Tally, WebFile, download, size_said
from turnout.deploy.sources.http_words import is_loopback, shown
from turnout.deploy.sources.source import Pinned, Progress, SourceSettings
from turnout.deploy.sources.web import Answer, Web, said

_HUB = "https://huggingface.co"
_URI = re.compile(
    r"hf://(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>refs/[\w.-]+/[\w.-]+|[^/?#@]+))?"
    r"(?:(?<=[^/])/(?P<path>[^?#]+))?(?:\?(?P<query>[^#]*))?",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: The same weights once more, as older libraries want them.
_WEIGHTS = ("*.bin", "*.h5", "*.msgpack", "*.ot", "*.ckpt", "*.pt", "*.pth")
_DENIED = (
    "The repository may be private, gated (accept its terms on its page) or misspelt. Set HF_TOKEN to a token of an "
    "account that may read it"
)


class HuggingFaceSource:
    """hf://ORG/NAME@REVISION, hf://ORG/NAME@REVISION/PATH: a repository, a directory of it, or one file.

    `?include=PATTERN` and `?exclude=PATTERN` (several times, if need be) choose files by their names. Where there are
    safetensors and nothing is chosen, the same weights in older forms are left out.
    """

    name = "huggingface"
    schemes = ("hf",)
    extra = ""
    resumes = True
    retries = True

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        found = _URI.fullmatch(uri)
        if not found:
            raise SourceFailed(
                f"{shown(uri)!r} is no URI of the Hugging Face hub; those are hf://ORG/NAME@REVISION/PATH"
            )
        name, path = found["name"], (found["path"] or "").strip("/")
        revision, query = unquote(found["revision"] or "main"), parse_qs(found["query"] or "")
        if unknown := set(query) - {"include", "exclude"}:
            raise SourceFailed(f"{uri!r} asks for {', '.join(sorted(unknown))}; only include and exclude are known")
        web = _web(settings)
        answer = web.ask(f"/api/models/{name}/revision/{quote(revision, safe='')}?blobs=true")
        if answer.status != 200:
            raise _missing(web, name, revision, answer)
        about = answer.json(web.name)
        commit = str(about.get("sha", "")) if isinstance(about, dict) else ""
        if not _COMMIT.fullmatch(commit):
            raise SourceFailed(f"{web.name} does not say which commit {name}@{revision} is")
        entries = [one for one in about.get("siblings") or [] if isinstance(one, dict)]
        files, single = _chosen([_file(one) for one in entries], path, query.get("include"), query.get("exclude"))
        if not files:
            there = ", ".join(sorted(str(one.get("rfilename")) for one in entries)[:12]) or "none"
            raise SourceFailed(f"{name}@{revision} has no files at {path or 'its top'!r} as asked for; it has: {there}")
        facts = {"name": name, "commit": commit, "path": path, "files": files}
        pinned = f"hf://{name}@{commit}" + (f"/{path}" if path else "")
        pinned += f"?{found['query']}" if found["query"] else ""
        nbytes = sum(max(int(str(size)), 0) for _, size, _ in files)
        return Pinned(uri, pinned, facts=facts, file=path.rpartition("/")[2] if single else "", nbytes=nbytes)

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        name, commit, path = (str(pinned.facts.get(key, "")) for key in ("name", "commit", "path"))
        found = pinned.facts.get("files")
        beside = path.rpartition("/")[0] if pinned.file else path
        remotes = [
            WebFile(
                file.removeprefix(f"{beside}/") if beside else file,
                f"/{name}/resolve/{commit}/{quote(file)}",
                size,
                digest,
            )
            for file, size, digest in (found if isinstance(found, list) else [])
        ]
        tally = Tally(pinned.nbytes, settings.max_artifact_bytes, progress)
        download(_web(settings), remotes, into, tally)


def _chosen(
    files: Sequence[list[Any]], path: str, include: Sequence[str] | None, exclude: Sequence[str] | None
) -> tuple[list[list[Any]], bool]:
    """The files that are asked for, and whether the path is one file."""
    single = [one for one in files if one[0] == path]
    if single:
        return single, True
    below = [one for one in files if not path or one[0].startswith(f"{path}/")]
    below = [one for one in below if not one[0].rpartition("/")[2].startswith(".git")]
    if include is None and exclude is None and any(one[0].endswith(".safetensors") for one in below):
        exclude = _WEIGHTS
    return [one for one in below if _matches(one[0], include or ["*"]) and not _matches(one[0], exclude or [])], False


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _file(entry: dict[str, Any]) -> list[Any]:
    """Name, bytes and digest of a file: sha256 for large ones, git's own for the rest, none from a poor mirror."""
    large = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
    size = size_said(large or entry, "size")
    sha256, git = str((large or {}).get("sha256") or ""), str(entry.get("blobId") or "")
    digest = f"sha256:{sha256}" if sha256 else f"git:{git}" if git and not large and size >= 0 else ""
    if digest and not _HEX.fullmatch(digest.partition(":")[2]):
        digest = ""
    return [str(entry.get("rfilename", "")), size, digest]


def _web(settings: SourceSettings) -> Web:
    address = settings.options.get("huggingface", {}).get("endpoint") or os.environ.get("HF_ENDPOINT") or _HUB
    host = urlsplit(address).hostname or ""
    insecure = settings.options.get("huggingface", {}).get("insecure", "").replace(",", " ").split()
    if address.startswith("http://") and not is_loopback(host) and host not in insecure:
        raise SourceFailed(
            f"the hub at {shown(address)} would be asked without TLS; use https://, or name {host} as insecure "
            "in the options of huggingface"
        )
    token = _token()
    return Web(
        f"the hub {host}",
        address,
        settings,
        authorize=lambda _: f"Bearer {token}" if token else "",
        denied=_DENIED,
        elsewhere=True,
    )


def _token() -> str:
    """The token that the hub's own tools use; "" where there is none."""
    if token := os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return token.strip()
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    try:
        return Path(os.environ.get("HF_TOKEN_PATH") or home / "token").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _missing(web: Web, name: str, revision: str, answer: Answer) -> SourceFailed:
    if answer.status != 404:
        return SourceFailed(f"{web.name} answered {answer.status} for {name}@{revision}{said(answer)}")
    if answer.headers.get("x-error-code") == "RevisionNotFound":
        found = web.ask(f"/api/models/{name}/refs")
        refs = found.json(web.name) if found.status == 200 else {}
        known = [str(one.get("name")) for kind in ("branches", "tags") for one in refs.get(kind) or []]
        return SourceFailed(f"{name} on {web.name} has no revision {revision!r}; there are: {', '.join(known[:20])}")
    return SourceFailed(f"{web.name} has no model repository {name!r}{said(answer)}. {_DENIED}")
