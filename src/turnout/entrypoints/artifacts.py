"""`turnout pull` and `turnout cache`: artifacts brought onto this machine, and what is kept of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.entrypoints.progress import Progress
from turnout.entrypoints.terminal import MIB, minute, say, table, write_json
from turnout.entrypoints.words import acts_of, source_words

if TYPE_CHECKING:
    from turnout.deploy.sources.cache import ArtifactCache
    from turnout.deploy.sources.disk import Entry

VERBS = ("pull", "cache")


def words(verbs: Any) -> None:
    """Adds the verbs."""
    pull = verbs.add_parser(
        "pull",
        help="fetch artifacts into the cache, without serving them",
        description="Fetches and verifies; prints the digest and the path of each, which can be served as they are.",
        usage="turnout pull [OPTIONS] URI ...",
        allow_abbrev=False,
    )
    pull.add_argument("uri", nargs="+", metavar="URI", help="from where: file:, https:, git+https:, s3:, models:/ ...")
    pull.add_argument("--json", action="store_true", help="as JSON, one line each")
    source_words(pull)
    cache = verbs.add_parser(
        "cache",
        help="list, verify and remove fetched artifacts",
        description="Fetched artifacts are kept by the digest of their content, and shared by all servers of yours.",
        usage="turnout cache ACT [OPTIONS] ...",
        allow_abbrev=False,
    )
    act = acts_of(cache, "cache")
    listing = act("list", "say what is there: the one used last first", "[OPTIONS]")
    listing.add_argument("--json", action="store_true", help="as JSON")
    verifying = act("verify", "compare every byte with the manifests", "[DIGEST ...]")
    verifying.add_argument(
        "digest", nargs="*", metavar="DIGEST", help="of `turnout cache list`, or how it begins; or all"
    )
    removing = act("remove", "remove artifacts that nothing uses", "DIGEST ...")
    removing.add_argument("digest", nargs="+", metavar="DIGEST", help="of `turnout cache list`, or how it begins")


def run(arguments: argparse.Namespace) -> int:
    """Does what was said; returns the exit code. Raises LoadFailed and its kinds."""
    acts: dict[str, Callable[[argparse.Namespace], int]] = {"list": _list, "verify": _verify, "remove": _remove}
    return _pull(arguments) if arguments.verb == "pull" else acts[arguments.act](arguments)


def _pull(arguments: argparse.Namespace) -> int:
    from turnout.entrypoints.supplies import supply_of

    supply, progress = supply_of(arguments), Progress()
    for uri in arguments.uri:
        try:
            found = supply.cache.fetch(uri, supply.settings, _told(progress, uri))
        finally:
            progress.end()
        if found.stale:
            say(f"{uri}: this is what it was last: {found.stale}")
        if arguments.json:
            facts = {"uri": uri, "digest": found.digest, "path": str(found.path), "pinned": found.pinned.pinned}
            more = {"version": found.pinned.version, "stale": found.stale, "from_cache": found.from_cache}
            print(json.dumps({**facts, **more, "nbytes": found.manifest.nbytes}), flush=True)
        else:
            print(f"{found.digest}  {found.path}", flush=True)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    cache = _cache()
    found = cache.entries()
    if arguments.json:
        keys = ("digest", "uri", "pinned", "nbytes", "files", "used", "in_use")
        write_json([{**{key: getattr(one, key) for key in keys}, "path": str(_path(one))} for one in found], None)
        return 0
    if not found:
        print(f"no artifacts in {cache.root}")
        return 0
    rows = [("DIGEST", "MIB", "FILES", "IN USE", "LAST USED", "FROM")]
    for one in found:
        size, used = f"{one.nbytes / MIB:.1f}", "yes" if one.in_use else "no"
        rows.append((one.digest.removeprefix("sha256:")[:16], size, str(one.files), used, minute(one.used), one.uri))
    print(table(rows))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    cache = _cache()
    entries = cache.entries()
    wanted = [_find(entries, beginning) for beginning in arguments.digest] or entries
    damaged = 0
    for entry in wanted:
        try:
            manifest = cache.verify(entry.digest)
        except LoadFailed as problem:
            damaged += 1
            print(f"{entry.digest}  damaged: {problem.message}")
        else:
            print(f"{entry.digest}  whole: {len(manifest.files)} files, {manifest.nbytes} bytes")
    return 1 if damaged else 0


def _remove(arguments: argparse.Namespace) -> int:
    cache = _cache()
    for beginning in arguments.digest:
        entry = _find(cache.entries(), beginning)
        cache.remove(entry.digest)
        print(f"removed {entry.digest}, {entry.nbytes / MIB:.1f} MiB")
    return 0


def _find(entries: list[Entry], beginning: str) -> Entry:
    """The one entry whose digest begins so. Raises SourceFailed where there is none, or more than one."""
    bare = beginning.removeprefix("sha256:")
    found = [entry for entry in entries if bare and entry.digest.removeprefix("sha256:").startswith(bare)]
    if len(found) != 1:
        what = "no artifact" if not found else f"{len(found)} artifacts"
        raise SourceFailed(f"the cache has {what} whose digest begins with {beginning!r}; see: turnout cache list")
    return found[0]


def _path(entry: Entry) -> Path:
    file = entry.path / entry.file
    return file if entry.file and file.is_file() else entry.path


def _cache() -> ArtifactCache:
    from turnout.deploy.supply import Supply

    return Supply().cache


def _told(progress: Progress, uri: str) -> Callable[[str, int, int], None]:
    """Turns counts of bytes into words."""

    def tell(what: str, done: int, total: int) -> None:
        if total:
            progress(uri, f"fetching: {done / MIB:.1f} of {total / MIB:.1f} MiB ({100 * done // total} %)")
        elif done:
            progress(uri, f"fetching: {done / MIB:.1f} MiB")
        elif what:
            progress(uri, what)

    return tell
