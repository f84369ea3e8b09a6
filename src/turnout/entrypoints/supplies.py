"""The words that say from where artifacts and packages may come, the same for every verb that needs them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from turnout.deploy.environments.environment import IndexPolicy
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.supply import Supply
from turnout.formats.artifact import Artifact

_REGISTRY = re.compile(r"(?:models|runs|oci|hf):/*(?P<rest>.+)")


def source_words(parser: argparse.ArgumentParser) -> None:
    """From where artifacts may come."""
    group = parser.add_argument_group("from where artifacts may come")
    group.add_argument("--allow-https", action="store_true", help="allow artifacts from any public https address")
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="allow https artifacts from this host; again for more",
    )
    group.add_argument("--offline", action="store_true", help="ask nobody: use what was fetched or built before")


def package_words(parser: argparse.ArgumentParser) -> None:
    """From where the packages of environments may come."""
    group = parser.add_argument_group("from where the packages of environments may come")
    group.add_argument(
        "--index-url",
        action="append",
        default=[],
        metavar="URL",
        help="a package index for environments; again for more",
    )
    group.add_argument("--no-public-index", action="store_true", help="ask no package index but those named here")
    group.add_argument(
        "--wheels",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of wheels for environments; again for more",
    )
    group.add_argument(
        "--source-builds", action="store_true", help="allow packages that run code when they are installed"
    )
    group.add_argument("--require-hashes", action="store_true", help="refuse requirements without hashes")


def supply_of(arguments: argparse.Namespace) -> Supply:
    """The Supply of parsed words."""
    settings = SourceSettings(
        allow_https=arguments.allow_https, allowed_hosts=tuple(arguments.allow_host), offline=arguments.offline
    )
    if "index_url" not in arguments:
        return Supply(settings)
    policy = IndexPolicy(
        index_urls=tuple(arguments.index_url),
        public=not arguments.no_public_index,
        wheels=tuple(Path(folder).absolute() for folder in arguments.wheels),
        offline=arguments.offline,
        source_builds=arguments.source_builds,
        require_hashes=arguments.require_hashes,
    )
    return Supply(settings, policy)


def name_of(artifact: str) -> str:
    """A model's name where the user gives none: the registry's name for it, or the file's without its ending."""
    if "://" not in artifact and not _REGISTRY.match(artifact):
        return Artifact.of(artifact).name
    path = re.sub(r"[?#].*", "", artifact)
    registered = _REGISTRY.match(path)
    if registered and artifact.startswith("models:"):
        path = registered["rest"].split("/")[0]
    last = re.sub(r"@[^/]*$|:[^/:]*$", "", path.rstrip("/")).rsplit("/", 1)[-1]
    stem = re.sub(r"(\.tar)?\.[A-Za-z0-9]+$", "", last)
    return re.sub(r"[^A-Za-z0-9_.\-]", "-", stem).strip("-.") or "model"
