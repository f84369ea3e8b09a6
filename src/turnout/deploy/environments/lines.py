"""Lines of a requirements file: read, brought into one form, and refused where they reach beyond an index."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from turnout.core.errors import EnvironmentFailed

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_CLAUSE = r"(?:===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9][A-Za-z0-9._*+!-]*"
_LINE = re.compile(
    rf"(?P<name>{_NAME})\s*(?:\[\s*(?P<extras>(?:{_NAME}\s*(?:,\s*{_NAME}\s*)*)?)\])?\s*"
    rf"(?P<open>\()?\s*(?P<clauses>{_CLAUSE}(?:\s*,\s*{_CLAUSE})*)?\s*,?\s*(?(open)\))\s*"
    r"(?:;\s*(?P<marker>[\w\s.'\"()<>=!~,+*-]+))?"
)
_HASH = re.compile(r"\s--hash[= ](?P<algorithm>\w+):(?P<value>\S+)")
_HASH_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
_OPTION = re.compile(r"(?P<name>--[a-z-]+|-[a-zA-Z])(?:\s*=\s*|\s+|(?<=^-[a-zA-Z])|$)(?P<value>.*)", re.DOTALL)
#: Options that name places; a model does not choose these.
PLACES = {
    **dict.fromkeys(("-i", "--index-url", "--pypi-url", "--extra-index-url"), "an index"),
    **dict.fromkeys(("-f", "--find-links"), "a folder or page of packages"),
    **dict.fromkeys(("--no-index", "--trusted-host"), "how indexes are asked"),
}
#: Options that say what is the case here anyway.
_KEPT_ANYWAY = {"--require-hashes", "--prefer-binary", "--only-binary"}
FILES = {"-r": "requirements", "--requirement": "requirements", "-c": "constraints", "--constraint": "constraints"}
_FILES_OF_PACKAGES = (".whl", ".gz", ".zip")
_LONGEST = 4096


def logical_lines(text: str) -> Iterator[str]:
    """The lines of a requirements file without comments, with what a backslash continues joined."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line:
            yield line


def option(line: str) -> tuple[str, str] | None:
    """Name and value of an option line (`-r FILE`, `--index-url=URL`); None for a requirement."""
    found = _OPTION.fullmatch(line)
    return None if found is None else (found["name"], found["value"].strip())


def is_idle(name: str) -> bool:
    """Whether an option asks for nothing that is not done anyway."""
    return name in _KEPT_ANYWAY


def canonical(line: str, origin: str) -> str:
    """One requirement in canonical form, hashes included. Raises EnvironmentFailed for anything else."""
    hashes = [_hash(found["algorithm"], found["value"], line, origin) for found in _HASH.finditer(f" {line}")]
    bare = _HASH.sub("", f" {line}").strip()
    found = _LINE.fullmatch(bare) if len(bare) <= _LONGEST else None
    if found is None or bare.startswith("-") or bare.endswith(_FILES_OF_PACKAGES):
        raise EnvironmentFailed(f"{origin}: {_shown(bare)} {_why_not(bare)}")
    extras = ",".join(sorted(name_of(extra) for extra in (found["extras"] or "").split(",") if extra.strip()))
    clauses = ",".join(sorted("".join(clause.split()) for clause in (found["clauses"] or "").split(",") if clause))
    marker = " ".join((found["marker"] or "").replace('"', "'").split())
    text = name_of(found["name"]) + (f"[{extras}]" if extras else "") + clauses + (f" ; {marker}" if marker else "")
    return " ".join([text, *(f"--hash={value}" for value in sorted(set(hashes)))])


def canonical_all(lines: Iterable[str], origin: str) -> tuple[str, ...]:
    """Every requirement in canonical form, sorted, each once. Raises EnvironmentFailed as `canonical` does."""
    return tuple(sorted({canonical(line, origin) for line in lines}))


def name_of(line: str) -> str:
    """The normalised name of the package a requirement asks for."""
    found = re.match(rf"\s*({_NAME})", line)
    return re.sub(r"[-_.]+", "-", found[1]).lower() if found else ""


def _hash(algorithm: str, value: str, line: str, origin: str) -> str:
    digits = _HASH_DIGITS.get(algorithm)
    if digits is None or not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value):
        raise EnvironmentFailed(
            f"{origin}: the hash {algorithm}:{value[:80]} of {name_of(line)} is none; expected sha256: and 64 "
            "hexadecimal digits (or sha384, sha512)"
        )
    return f"{algorithm}:{value.lower()}"


def _shown(line: str) -> str:
    line = re.sub(r"://[^/@\s]+@", "://***@", line)
    return repr(line if len(line) <= 160 else line[:157] + "...")


def _why_not(line: str) -> str:
    if line.startswith(("-e", "--editable")):
        return "would install source code from a path; only packages from an index or a folder of wheels are installed"
    if re.search(r"(^|@\s*)(git|hg|svn|bzr)\+", line):
        return "points at a source repository; build a wheel of it and put that into an index or a folder of wheels"
    if "://" in line:
        return "points at an address of its own; only packages from the operator's indexes are installed"
    if line.startswith(("-", "+")):
        return "is an option that is not taken from a model"
    if re.match(r"[./~\\]", line) or line.endswith(_FILES_OF_PACKAGES) or re.match(r"[A-Za-z]:\\", line):
        return "points at a local file; put the wheel into a folder of wheels that the operator names"
    if "${" in line:
        return "names an environment variable; write the value"
    return "is no requirement; expected a name with versions, as in numpy>=1.26,<3"
