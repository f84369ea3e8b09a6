"""Parsed words become what they mean: from where artifacts come, how a model is loaded, and what it is called."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from turnout.deploy.environments.environment import IndexPolicy
from turnout.deploy.load import load_options
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.supply import Supply
from turnout.formats.artifact import Artifact, LoadOptions

_REGISTRY = re.compile(r"(?:models|runs|oci|hf):/*(?P<rest>.+)")


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


def options_of(arguments: argparse.Namespace) -> LoadOptions:
    """How a model is loaded. Raises InvalidInput for a signature or an example that cannot be read."""
    return load_options(
        trust_pickle=arguments.trust_pickle,
        format=arguments.format,
        threads=arguments.threads,
        signature=arguments.signature,
        example=arguments.example,
    )


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
