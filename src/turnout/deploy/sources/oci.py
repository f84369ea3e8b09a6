"""Models in OCI registries: artifacts whose layers are files, packages of archives, and images with `/models`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from turnout.core.errors import SourceFailed
from turnout.deploy.sources.download import Tally, WebFile, download
from turnout.deploy.sources.http_words import shown
from turnout.deploy.sources.oci_layers import MODELS, Layer, Unpacking, layers_of, only_file
from turnout.deploy.sources.oci_registry import Registry
from turnout.deploy.sources.source import Pinned, Progress, SourceSettings

_URI = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?)"
    r"/(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
#: Archives on their way; inside the artifact's directory, so that they go where it goes.
_ARCHIVES = ".turnout-layers"


class OciSource:
    """oci://HOST/REPOSITORY:TAG, oci://HOST/REPOSITORY@sha256:DIGEST; without either, the tag is `latest`."""

    name = "oci"
    schemes = ("oci",)
    extra = ""
    resumes = True
    retries = True

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        host, repository, tag, digest = _parts(uri)
        registry = Registry(host, repository, settings)
        digest = digest or registry.digest(tag or "latest")
        pinned = f"oci://{host}/{repository}@{digest}"
        manifest = registry.manifest(digest)
        layers, is_image = layers_of(manifest, pinned)
        facts = {"layers": [[one.digest, one.size, one.title, one.archive] for one in layers], "image": is_image}
        return Pinned(uri, pinned, facts=facts, file=only_file(layers), nbytes=sum(one.size for one in layers))

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        host, repository, _, _ = _parts(pinned.pinned)
        registry = Registry(host, repository, settings)
        found = pinned.facts.get("layers")
        layers = [Layer(*one) for one in found] if isinstance(found, list) else []
        tally = Tally(pinned.nbytes, settings.max_artifact_bytes, progress)
        archives = into / _ARCHIVES
        archives.mkdir(exist_ok=True)
        download(registry.web, _remotes(layers, registry, pinned.pinned), into, tally)
        below = MODELS if pinned.facts.get("image") else ""
        unpacking = Unpacking(into, pinned.pinned, below, settings.max_artifact_bytes)
        for one in layers:
            if one.archive:
                unpacking.unpack(archives / one.digest.removeprefix("sha256:"), one.archive)
        shutil.rmtree(archives)
        if not any(into.iterdir()):
            there = ", ".join(sorted(unpacking.seen)[:12]) or "nothing"
            raise SourceFailed(f"{pinned.pinned} is an image without files in /{MODELS}; at its top there are: {there}")


def _remotes(layers: list[Layer], registry: Registry, named: str) -> list[WebFile]:
    """Files under their titles, archives aside under their digests; a blob that comes twice is fetched once."""
    found: dict[str, WebFile] = {}
    for one in layers:
        if not one.archive and one.title.split("/")[0] == _ARCHIVES:
            raise SourceFailed(f"{named} holds a file called {_ARCHIVES!r}, which no artifact may have")
        name = f"{_ARCHIVES}/{one.digest.removeprefix('sha256:')}" if one.archive else one.title
        remote = WebFile(name, registry.blob_url(one.digest), one.size, one.digest)
        if found.setdefault(name, remote) != remote:
            raise SourceFailed(f"{named} holds two files called {name[:120]!r}")
    return list(found.values())


def _parts(uri: str) -> tuple[str, str, str, str]:
    """Host, repository, tag and digest of a URI. Raises SourceFailed."""
    found = _URI.fullmatch(uri)
    if not found:
        raise SourceFailed(
            f"{shown(uri)!r} is no URI of an OCI artifact; those are oci://HOST/REPOSITORY:TAG or "
            "oci://HOST/REPOSITORY@sha256:DIGEST (no user or password in them: log in with `docker login`)"
        )
    return found["host"], found["repository"], found["tag"] or "", found["digest"] or ""
