"""The reference has an entry for every option, error, path, method, header and field, and for nothing else."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import turnout
from turnout.core import errors
from turnout.core.errors import Failure
from turnout.deploy.spec import ModelSpec, ServeSpec
from turnout.entrypoints.cli import _parser
from turnout.entrypoints.library import LoadedModel
from turnout.entrypoints.scrape import Scrape
from turnout.protocols.http import UnsupportedMediaType, status_of
from turnout.protocols.rest import REST_PROTOCOLS
from turnout.protocols.v2_grpc import GRPC_METHODS
from turnout.runtime.batch_policy import BatchPolicy

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
SOURCES = {path: path.read_text() for path in sorted((ROOT / "src" / "turnout").rglob("*.py"))}
PROSE = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def section(page: str, heading: str = "") -> str:
    """A reference page, or what stands in it under a heading."""
    text = (REFERENCE / page).read_text()
    if not heading:
        return text
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return parts[parts.index(heading) + 1]


def rows(text: str) -> dict[str, list[str]]:
    """Tables as the first cell's code and the other cells. Raises AssertionError where one stands twice."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) > 1:
            key = cells[0].strip("`")
            assert key not in found, f"{key} stands twice"
            assert all(cells[-1:]), f"{key} has no meaning"
            found[key] = cells[1:]
    return found


# -- the command line -------------------------------------------------------------------------------------------------


def verbs() -> dict[str, argparse.ArgumentParser]:
    (choices,) = [a.choices for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(choices)


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {a.option_strings[-1]: a for a in parser._actions if a.option_strings and a.dest != "help"}


def test_every_verb_has_its_heading() -> None:
    headings = re.findall(r"^## `turnout (\w+)`$", section("command-line.md"), re.MULTILINE)
    assert headings == list(verbs())


@pytest.mark.parametrize("verb", verbs())
def test_every_option_has_its_row_with_its_default(verb: str) -> None:
    listed = rows(section("command-line.md", f"`turnout {verb}`"))
    known = options(verbs()[verb])
    assert set(listed) == set(known)
    for name, action in known.items():
        default = listed[name][0].strip("`")
        if action.required:
            assert default == "required", name
        elif action.default is False:
            assert default == "off", name
        elif action.default is not None:
            assert default == f"{action.default:g}" if isinstance(action.default, float) else str(action.default), name


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_options_that_a_page_mentions_exist(page: Path) -> None:
    known = "|".join(verb for verb in verbs() if verb not in {"cache", "env"})  # these have verbs of their own
    for line in page.read_text().splitlines():
        if found := re.search(rf"\bturnout ({known})\b(.*)", line):
            mentioned = re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", found[2].split(" | ")[0].split("`")[0])
            assert set(mentioned) <= set(options(verbs()[found[1]])), line


# -- errors -----------------------------------------------------------------------------------------------------------


def test_every_failure_has_its_row_with_its_code() -> None:
    listed = rows(section("errors.md"))
    core = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Failure)]
    known: dict[str, type[Failure]] = {kind.__name__: kind for kind in (*core, UnsupportedMediaType)}
    assert set(listed) == set(known)
    for name, kind in known.items():
        code, status, fault, again = (cell.strip("`") for cell in listed[name][:4])
        assert (code, fault) == (kind.code.name, kind.fault.value), name
        assert int(status) == status_of(kind("text")), name
        assert again == ("yes" if kind.retryable else "no"), name


def test_statuses_of_the_door_are_listed() -> None:
    sources = "".join(text for path, text in SOURCES.items() if path.parent.name == "http")
    raised = set(re.findall(r"\b(?:Refusal|refusal)\(\s*(\d{3}),", sources))
    table = section("errors.md", "What the HTTP door refuses by itself")
    listed = set(re.findall(r"^\| (\d{3}) \|", table, re.MULTILINE))
    assert raised
    assert raised - {"500"} == listed


# -- HTTP and gRPC ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def known_routes() -> dict[str, str]:
    scrape: Any = object.__new__(Scrape)
    found = [(p.name, route) for p in (*REST_PROTOCOLS, scrape) for route in p.routes()]
    return {f"{route.method} {route.pattern}": name for name, route in found}


def test_every_path_has_its_row(known_routes: dict[str, str]) -> None:
    listed = rows(section("http.md", "Paths"))
    assert {path: cells[0] for path, cells in listed.items()} == known_routes


def test_every_grpc_method_has_its_row() -> None:
    assert set(rows(section("grpc.md", "Methods"))) == {method.path for method in GRPC_METHODS}


_HTTP_READ = re.compile(r'headers(?:\.get\(|\[)"([a-z-]+)"')
_HTTP_NAMED = re.compile(r'^HEADER = "([a-z-]+)"', re.MULTILINE)
_HTTP_WRITTEN = re.compile(r'\("((?:[A-Z][A-Za-z]*-)+[A-Z][A-Za-z]+|Allow|Connection|Vary|Location)", ')
_HTTP_LINES = re.compile(r"\\r\\n([A-Z][A-Za-z-]+): ")
_NODES_READ = re.compile(r'"(x-[a-z-]+)"')
_GRPC = re.compile(r'b"((?:grpc|x|content)-[a-z-]+)"')
_GRPC_READ = re.compile(r'fields\.get\(b"([a-z-]+)"')


def found_in(patterns: tuple[re.Pattern[str], ...], *folders: str) -> set[str]:
    texts = [text for path, text in SOURCES.items() if path.parent.name in folders or path.name == "scrape.py"]
    return {name.lower() for pattern in patterns for text in texts for name in pattern.findall(text)}


def listed_in(page: str, heading: str) -> set[str]:
    return {name.lower() for name in rows(section(page, heading))}


def test_http_fields_that_are_read_are_listed() -> None:
    read = found_in((_HTTP_READ, _HTTP_NAMED), "http", "protocols") | found_in((_NODES_READ,), "graph")
    assert listed_in("http.md", "Request header fields") == read


def test_http_fields_that_are_written_are_listed() -> None:
    written = found_in((_HTTP_WRITTEN, _HTTP_LINES), "http", "protocols")
    assert listed_in("http.md", "Response header fields") == written


def test_grpc_metadata_is_listed() -> None:
    read = found_in((_GRPC_READ,), "grpc") - {"content-length"} | found_in((_NODES_READ,), "graph")
    sent = {name for name in found_in((_GRPC,), "grpc") if not name.startswith("content-")}
    written = sent - (read - {"grpc-encoding", "grpc-accept-encoding"})
    assert listed_in("grpc.md", "Metadata that is read") == read
    assert listed_in("grpc.md", "Metadata that is sent") == written


# -- the spec, Python -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ServeSpec, ModelSpec, BatchPolicy], ids=lambda kind: kind.__name__)
def test_every_field_of_the_spec_has_its_row(kind: Any) -> None:
    listed = rows(section("spec.md", kind.__name__))
    known = {each.name: each for each in dataclasses.fields(kind)}
    assert list(listed) == list(known)
    flags = {*options(verbs()["serve"]), "MODEL", "MODEL ...", "NAME=", ""}
    for name, each in known.items():
        default, option = (cell.strip("`") for cell in listed[name][:2])
        if each.default is not dataclasses.MISSING:
            assert default == repr(each.default).replace("'", '"'), name
        assert option in flags, name


def test_load_is_as_described() -> None:
    listed = rows(section("python.md", "`turnout.load`"))
    parameters = inspect.signature(turnout.load).parameters
    assert list(listed) == list(parameters)
    for name, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            assert listed[name][0].strip("`") == repr(parameter.default), name


def test_a_loaded_model_is_as_described() -> None:
    members = {"name", "format", *(name for name in vars(LoadedModel) if not name.startswith("_"))}
    assert set(rows(section("python.md", "A loaded model"))) == members


def test_names_of_the_python_page_can_be_imported() -> None:
    names = re.findall(r"^\| `(turnout\.[\w.]+)` \|", section("python.md"), re.MULTILINE)
    assert names
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert attribute in dir(import_module(module)) or import_module(name), name
