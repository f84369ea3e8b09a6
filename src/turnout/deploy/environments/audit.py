"""Known vulnerabilities of an environment. The one file that speaks to pip-audit, a program in its own environment."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.commands import run
from turnout.deploy.environments.environment import Environment, Requirements, Tell
from turnout.deploy.environments.inventory import site_packages
from turnout.deploy.environments.store import Environments

TOOL = Requirements(("pip-audit<3,>=2.10",), origin="the audit")
_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One known vulnerability of one installed package; fixed: the versions that do not have it."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    description: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found; audited: packages that the service knows, not_audited: the others, with why."""

    findings: tuple[Finding, ...]
    audited: tuple[str, ...]
    not_audited: dict[str, str]

    @property
    def clean(self) -> bool:
        """Whether every package was looked up and none has a known vulnerability."""
        return not self.findings and not self.not_audited and bool(self.audited)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "clean": self.clean,
            "findings": [
                {name: getattr(one, name) for name in ("package", "version", "id", "aliases", "fixed", "description")}
                for one in self.findings
            ],
            "audited": list(self.audited),
            "not_audited": self.not_audited,
        }


def audit(environment: Environment, environments: Environments, tell: Tell, osv_url: str = "") -> Audit:
    """Asks a vulnerability service about each package: the one at `osv_url`, or else the public index's own.

    Builds pip-audit's own environment first, as the policy allows. Raises EnvironmentFailed, "not audited: ...",
    where nothing could be asked; it never takes silence for a good answer.
    """
    policy = environments.policy
    if not osv_url and (policy.offline or not policy.public):
        raise EnvironmentFailed(
            "not audited: the public index, which would be asked for vulnerabilities, may not be asked; name a service "
            "of your own that speaks OSV's protocol with --osv-url"
        )
    tool = environments.ensure(TOOL, tell)
    with environments.hold(tool), tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *(str(tool.python), "-I", "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"),
            *("--output", str(report), "--cache-dir", str(Path(folder) / "cache")),
        ]
        if osv_url:
            command += ["--vulnerability-service", "osv", "--osv-url", osv_url]
        for place in site_packages(environment.path):
            command += ["--path", str(place)]
        said: list[str] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        ended = run(command, kept, said.append, folder=Path(folder), timeout=_SECONDS)
        found = _read(report)
    if found is None:
        reason = said[-1] if said else f"exit code {ended.code}"
        raise EnvironmentFailed(f"not audited: the vulnerability service gave no answer ({reason})")
    if environment.packages and not found.audited:
        why = next(iter(found.not_audited.values()), "it names no package")
        raise EnvironmentFailed(f"not audited: the vulnerability service knows none of the packages ({why})")
    return found


def _read(report: Path) -> Audit | None:
    """The report's meaning; None where there is none."""
    try:
        entries: list[dict[str, Any]] = json.loads(report.read_bytes())["dependencies"]
        return Audit(
            tuple(
                Finding(
                    entry["name"],
                    entry["version"],
                    one["id"],
                    tuple(one.get("aliases") or ()),
                    tuple(one.get("fix_versions") or ()),
                    one.get("description") or "",
                )
                for entry in entries
                for one in entry.get("vulns", ())
            ),
            tuple(sorted(entry["name"] for entry in entries if "skip_reason" not in entry)),
            {entry["name"]: entry["skip_reason"] for entry in entries if "skip_reason" in entry},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
