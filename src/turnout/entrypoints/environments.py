"""`turnout env`: the environments of models, listed, built, removed, described and audited."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnout.core.errors import EnvironmentFailed
from turnout.entrypoints.terminal import MIB, minute, say, table, write_json
from turnout.entrypoints.words import acts_of, number, package_words, source_words

if TYPE_CHECKING:
    from turnout.deploy.environments.store import Environments
    from turnout.deploy.supply import Supply


def words(verbs: Any) -> None:
    """Adds the verb `env` to the command's verbs."""
    env = verbs.add_parser(
        "env",
        help="list, build, remove, describe and audit the environments of models",
        description="Environments are built once for each set of requirements, and shared by all models that have it.",
        usage="turnout env ACT [OPTIONS] ...",
        allow_abbrev=False,
    )
    act = acts_of(env, "env")
    listing = act("list", "say what is there: the one used last first", "[OPTIONS]")
    listing.add_argument("--json", action="store_true", help="as JSON, with every package")
    building = act("build", "build what a model brings, before it is served", "[OPTIONS] [MODEL]")
    building.add_argument("model", nargs="?", metavar="MODEL", help="a directory, or a URI of one")
    building.add_argument("--requirements", metavar="FILE", help="a requirements or environment file instead")
    source_words(building)
    package_words(building)
    removing = act("remove", "remove environments that nothing uses", "DIGEST ...")
    removing.add_argument("digest", nargs="+", metavar="DIGEST", help="of `turnout env list`, or how it begins")
    evicting = act("evict", "remove those unused for longest, until the rest is small enough", "--max-mb N")
    evicting.add_argument(
        "--max-mb", type=number("a size in MiB"), required=True, metavar="N", help="what may stay, in MiB"
    )
    describing = act("sbom", "write what is installed as a CycloneDX bill of materials", "[OPTIONS] DIGEST")
    auditing = act("audit", "ask a vulnerability service about what is installed", "[OPTIONS] DIGEST")
    for one in (describing, auditing):
        one.add_argument("digest", metavar="DIGEST", help="of `turnout env list`, or how it begins")
        one.add_argument("--output", metavar="FILE", help="write JSON there instead of standard output")
    auditing.add_argument("--osv-url", default="", metavar="URL", help="a service that speaks OSV's protocol")
    auditing.set_defaults(allow_https=False, allow_host=[], offline=False)  # it fetches no artifact
    package_words(auditing)


def run(arguments: argparse.Namespace) -> int:
    """Does what was said; returns the exit code. Raises EnvironmentFailed and the kinds of LoadFailed."""
    acts: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "build": _build,
        "remove": _remove,
        "evict": _evict,
        "sbom": _sbom,
        "audit": _audit,
    }
    return acts[arguments.act](arguments)


def _list(arguments: argparse.Namespace) -> int:
    found = _here().entries()
    if arguments.json:
        keys = ("digest", "origin", "nbytes", "shared_bytes", "built", "used", "lines", "packages")
        facts = [{**{key: getattr(one, key) for key in keys}, "path": str(one.path)} for one in found]
        write_json(facts, None)
        return 0
    if not found:
        print(f"no environments in {_here().root}")
        return 0
    rows = [("DIGEST", "PACKAGES", "MIB", "SHARED", "LAST USED", "FROM")]
    for one in found:
        sizes = (str(len(one.packages)), f"{one.nbytes / MIB:.0f}", f"{one.shared_bytes / MIB:.0f}")
        rows.append((one.digest, *sizes, minute(one.used), f"{one.origin}: {_brief(one.lines)}"))
    print(table(rows))
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from turnout.deploy.environments.requirements import requirements_of
    from turnout.entrypoints.supplies import supply_of

    if (arguments.model is None) == (arguments.requirements is None):
        raise EnvironmentFailed("say what to build for: a MODEL, or --requirements FILE")
    supply: Supply = supply_of(arguments)
    given = Path(arguments.requirements) if arguments.requirements is not None else None
    place = Path() if given is not None else Path(supply.local(arguments.model, say))
    if given is None and not place.exists():
        raise EnvironmentFailed(f"there is no file or directory {arguments.model!r}")
    requirements = requirements_of(place, given)
    if requirements is None:
        raise EnvironmentFailed(
            f"{arguments.model} brings no requirements (requirements.lock, requirements.txt, python_env.yaml or "
            "conda.yaml); it runs in the server's own environment"
        )
    found = supply.environments.ensure(requirements, say)
    print(f"{found.digest}  {found.path}")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    store = _here()
    for beginning in arguments.digest:
        digest = store.find(beginning).digest
        if not store.remove(digest):
            raise EnvironmentFailed(f"the environment {digest} is in use; it was not removed")
        print(f"removed {digest}")
    return 0


def _evict(arguments: argparse.Namespace) -> int:
    for one in _here().evict(int(arguments.max_mb * MIB)):
        print(f"removed {one.digest}, {one.nbytes / MIB:.0f} MiB")
    return 0


def _sbom(arguments: argparse.Namespace) -> int:
    from turnout.deploy.environments.inventory import bill_of_materials

    write_json(bill_of_materials(_here().find(arguments.digest)), arguments.output)
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    from turnout.deploy.environments.audit import audit
    from turnout.entrypoints.supplies import supply_of

    store = supply_of(arguments).environments
    found = audit(store.find(arguments.digest), store, say, arguments.osv_url)
    for one in found.findings:
        fixed = f", fixed in {', '.join(one.fixed)}" if one.fixed else ""
        names = f" ({', '.join(one.aliases)})" if one.aliases else ""
        say(f"{one.package} {one.version}: {one.id}{names}{fixed}")
    for name, why in found.not_audited.items():
        say(f"not audited: {name}: {why}")
    say(f"{len(found.audited)} packages audited, {len(found.not_audited)} not, {len(found.findings)} vulnerabilities")
    write_json(found.to_json(), arguments.output)
    return 0 if found.clean else 1


def _here() -> Environments:
    from turnout.deploy.supply import Supply

    return Supply().environments


def _brief(lines: tuple[str, ...]) -> str:
    text = ", ".join(line.split(" --hash=")[0] for line in lines)
    return text if len(text) <= 60 else f"{text[:57]}..."
