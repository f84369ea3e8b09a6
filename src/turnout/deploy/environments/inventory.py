"""What is installed in an environment, read from the packages' own records; nothing of it is imported."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

import turnout
from turnout.deploy.environments.environment import Environment
from turnout.deploy.environments.lines import name_of

_LICENCES = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
_HASHES = {"sha256": "SHA-256", "sha384": "SHA-384", "sha512": "SHA-512"}
_LONGEST_NAME = 120


def site_packages(path: Path) -> list[Path]:
    """Where the packages of the virtualenv at `path` are."""
    return sorted(path.glob("lib/python*/site-packages"))


def installed(path: Path) -> list[Distribution]:
    """The distributions in the virtualenv at `path`, sorted by name."""
    found = distributions(path=[str(folder) for folder in site_packages(path)])
    return sorted((one for one in found if one.metadata["Name"]), key=lambda one: name_of(one.metadata["Name"]))


def packages(path: Path) -> dict[str, str]:
    """Normalised name to version, as installed."""
    return {name_of(one.metadata["Name"]): one.version for one in installed(path)}


def bill_of_materials(environment: Environment) -> dict[str, Any]:
    """The environment as a CycloneDX 1.6 document (JSON values): what is installed, its licences, what needs what.

    The same environment gives the same document. A package's hash is that of its wheel, where a lock fixed it to
    one; the hash of its own record of files stands there always, as the property `turnout:record:sha256`.
    """
    found = installed(environment.path)
    names = {name_of(one.metadata["Name"]): _purl(one) for one in found}
    hashes = _locked(environment.lines)
    reference = f"environment:{environment.digest}"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, environment.digest + repr(names))}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(int(environment.built), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {"components": [{"type": "application", "name": "turnout", "version": turnout.__version__}]},
            "component": {
                "type": "application",
                "bom-ref": reference,
                "name": environment.digest,
                "description": f"Python environment of a model; required by {environment.origin}",
            },
        },
        "components": [_component(one, hashes) for one in found],
        "dependencies": [
            {"ref": reference, "dependsOn": sorted({names[n] for n in map(name_of, environment.lines) if n in names})},
            *({"ref": _purl(one), "dependsOn": _needed(one, names)} for one in found),
        ],
    }


def _component(one: Distribution, hashes: dict[str, list[str]]) -> dict[str, Any]:
    name = name_of(one.metadata["Name"])
    component: dict[str, Any] = {"type": "library", "bom-ref": _purl(one), "name": name, "version": one.version}
    if summary := one.metadata["Summary"]:
        component["description"] = summary
    if len(hashes.get(name, ())) == 1:  # of several, which wheel was taken is not known
        algorithm, _, value = hashes[name][0].partition(":")
        component["hashes"] = [{"alg": _HASHES[algorithm], "content": value}]
    if licences := _licences(one):
        component["licenses"] = licences
    component["purl"] = _purl(one)
    record = one.read_text("RECORD")
    if record is not None:
        digest = hashlib.sha256(record.encode()).hexdigest()
        component["properties"] = [{"name": "turnout:record:sha256", "value": digest}]
    return component


def _licences(one: Distribution) -> list[dict[str, Any]]:
    """What the package says of its licence: an SPDX expression, its classifiers, or the name it writes."""
    if expression := one.metadata["License-Expression"]:
        return [{"expression": expression}]
    classified = [
        line.rsplit(" :: ", 1)[1]
        for line in one.metadata.get_all("Classifier") or ()
        if line.startswith("License :: OSI Approved :: ")
    ]
    if classified:
        return [{"license": {"id": _LICENCES[kind]} if kind in _LICENCES else {"name": kind}} for kind in classified]
    lines = (one.metadata["License"] or "").strip().splitlines()
    return [{"license": {"name": lines[0].strip()[:_LONGEST_NAME]}}] if lines and lines[0] != "UNKNOWN" else []


def _needed(one: Distribution, names: dict[str, str]) -> list[str]:
    """Those installed packages that it asks for, but for what only its extras ask for."""
    asked = {name_of(line) for line in one.requires or () if not re.search(r";.*\bextra\b", line)}
    return sorted(names[name] for name in asked & names.keys())


def _purl(one: Distribution) -> str:
    return f"pkg:pypi/{name_of(one.metadata['Name'])}@{quote(one.version, safe='.-~')}"


def _locked(lines: tuple[str, ...]) -> dict[str, list[str]]:
    return {name_of(line): re.findall(r"--hash=(\S+)", line) for line in lines}
