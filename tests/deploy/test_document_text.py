"""Several files are one document, and `${NAME}` stands for addresses and secrets only."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnout.core.errors import InvalidInput
from turnout.deploy.changes import changes
from turnout.deploy.document import Document, parse_document, read_document
from turnout.deploy.references import PLACES, check_references, resolved
from turnout.deploy.spec import ModelSpec
from turnout.deploy.supply import Supply


def write(folder: Path, **files: str) -> Path:
    """Writes files, in whose names two underscores are a slash; the first one's path."""
    paths = [folder / f"{name.replace('__', '/')}.yaml" for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return paths[0]


FRAUD = "endpoints: {fraud: {versions: {v1: {model: fraud.onnx, signature: s.json}}}}"


def test_included_files_are_one_document(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        main="include: [parts/fraud.yaml, more.yaml]\nmodels: [{name: a, artifact: a.onnx}]\nserver: {port: 1}",
        parts__fraud=FRAUD + "\ninclude: deeper/b.yaml",
        parts__deeper__b="models: [{name: b, artifact: ../b.onnx}]\nenvironments: {wheels: [wheels]}",
        more="server: {grpc_port: 2}",
    )
    document = read_document(path)
    assert document.names == ["a", "b", "fraud"]
    assert [model.artifact for model in document.models] == [str(tmp_path / "a.onnx"), str(tmp_path / "parts/b.onnx")]
    version = document.endpoint("fraud").versions[0]
    assert version.model is not None
    assert version.model.signature == str(tmp_path / "parts/s.json"), "paths count from the file that names them"
    assert document.settings == {
        "server": {"port": 1, "grpc_port": 2},
        "environments": {"wheels": [str(tmp_path / "parts/deeper/wheels")]},
    }


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"main": "include: [a.yaml]", "a": "include: [b.yaml]", "b": "include: [a.yaml]"},
         r"b\.yaml:1: include\[0\]: files include each other in a circle; .*a\.yaml -> b\.yaml -> a\.yaml"),
        ({"main": "include: [main.yaml]"}, "in a circle"),
        ({"main": "include: [a.yaml, a.yaml]", "a": FRAUD}, r"main\.yaml:1: include\[1\]: included twice"),
        ({"main": "include: [nothing.yaml]"}, r"main\.yaml:1: include: nothing\.yaml cannot be read \(No such file"),
        ({"main": "include: [7]"}, r"include\[0\]: not a file; expected a relative path; got 7"),
        ({"main": "include: [{fil: a.yaml}]"}, r"fil: unknown; .*works: file: "),
        ({"main": "include: [../outside.yaml]"},
         r"include\[0\]: outside of the directory .*works: include: \[\{file: \.\./outside\.yaml, outside: true\}\]"),
        ({"main": "include: [/etc/passwd]"}, "outside of the directory of the document"),
        ({"main": "include: [a.yaml]\n" + FRAUD, "a": FRAUD},
         r"a\.yaml:1: endpoints\.fraud: said twice; got also in main\.yaml:2: endpoints\.fraud"),
        ({"main": "include: [a.yaml]\nserver: {port: 1}", "a": "\nserver: {port: 2}"},
         r"a\.yaml:2: server\.port: said twice; got also in main\.yaml:2"),
        ({"main": "include: [a.yaml]", "a": "- 1"}, r"a\.yaml: not a mapping"),
        ({"main": "include: [a.yaml]", "a": "x: ["}, r"a\.yaml:1: not YAML"),
        ({"main": "models: [{name: a, artifact: a}]\ninclude: p/a.yaml", "p__a": "\nmodels: [{name: b, artefact: b}]"},
         r"p/a\.yaml:2: models\[0\]\.artefact: unknown; .*artifact: "),
        ({"main": "models: [{name: a, artifact: a}]\ninclude: [a.yaml]", "a": "\nmodels: [{name: a, artifact: b}]"},
         r"a\.yaml:2: models\[0\]\.name: two are called 'a'"),
        ({"main": "models: [{name: a, artifact: a.onnx, watch: 2024-01-01}]"}, "not a plain value; expected a text: "),
        ({"main": '{"models": [{"name": "a", "name": "b"}]}'}, r"main\.yaml: stands twice; got 'name'"),
        ({"main": '{"models": [{"name": "a", "artifact": "x", "watch": NaN}]}'}, r"main\.yaml: not JSON; got NaN"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_one_document(tmp_path: Path, files: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_document(write(tmp_path / "spec", **files))


def test_a_file_outside_is_included_where_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, team=FRAUD)
    path = write(tmp_path / "spec", main="include: [{file: ../team.yaml, outside: true}]")
    assert read_document(path).names == ["fraud"]
    (tmp_path / "spec/link.yaml").symlink_to(tmp_path / "team.yaml")
    with pytest.raises(InvalidInput, match="outside of the directory"):
        read_document(write(tmp_path / "spec", main="include: [link.yaml]"))


def test_a_text_that_is_no_file_includes_nothing() -> None:
    with pytest.raises(InvalidInput, match="a document that is no file includes none"):
        parse_document("include: [/etc/passwd]")
    with pytest.raises(InvalidInput, match="include: unknown"):
        parse_document({"include": ["/etc/passwd"]})


def test_references_stay_until_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x")
    monkeypatch.setenv("TURNOUT_TEST_MODELS", str(tmp_path))
    text = "models: [{name: a, artifact: '${TURNOUT_TEST_MODELS}/a.onnx'}]"
    document = parse_document(text, str(tmp_path / "turnout.yaml"))
    assert document.models[0].artifact == "${TURNOUT_TEST_MODELS}/a.onnx"
    assert Document.from_text(document.to_text()).digest == document.digest
    assert str(tmp_path) not in document.to_text() + changes(None, document).text
    (found,) = Supply().find(document.models[0])
    assert found.path == str(tmp_path / "a.onnx")
    monkeypatch.delenv("TURNOUT_TEST_MODELS")
    with pytest.raises(InvalidInput, match=r"models\[0\]\.artifact: the environment has no TURNOUT_TEST_MODELS"):
        document.check_environment()
    with pytest.raises(InvalidInput, match="the environment has no TURNOUT_TEST_MODELS"):
        Supply().find(ModelSpec("a", "${TURNOUT_TEST_MODELS}/a.onnx"))


def test_what_references_stand_for() -> None:
    environment = {"A": "1", "EMPTY": ""}
    assert resolved("x", environment=environment) == "x"
    assert resolved("${A}-${B:-2}-${EMPTY:-3}-${C:-}", environment=environment) == "1-2-3-"
    for text in ("${B}", "${EMPTY}"):
        with pytest.raises(InvalidInput, match="the environment has no "):
            resolved(text, environment=environment)
    with pytest.raises(InvalidInput, match="not a reference"):  # no reference inside another
        check_references({"server": {"host": "${A:-${B}}"}})


@pytest.mark.parametrize("place", PLACES)
def test_addresses_and_secrets_may_be_references(place: str) -> None:
    """Everywhere else they are refused: see the document's own tests."""
    keys = place.replace("[]", ".[]").replace("*", "name").split(".")
    said: object = "https://${HOST}/x"
    for key in reversed(keys):
        said = [said] if key == "[]" else {key: said}
    check_references(said)
    for wrong in ("${HOST", "${1}", "a${}", "${A:+b}"):
        said = wrong
        for key in reversed(keys):
            said = [said] if key == "[]" else {key: said}
        with pytest.raises(InvalidInput, match="not a reference; expected"):
            check_references(said)


@pytest.mark.parametrize(
    "said",
    [
        {"models": [{"name": "${A}", "artifact": "a"}]},
        {"endpoints": {"e": {"versions": {"v": {"model": "a", "place": "${A:-worker}"}}}}},
        {"endpoints": {"e": {"sticky": {"header": "${A}"}}}},
        {"endpoints": {"e": {"fallback": [{"default": {"model": "${A}"}}]}}},
        {"server": {"access_log": "${A}"}},
        {"endpoints": {"e": {"rollout": {"to": "${A}"}}}},
    ],
)
def test_nothing_else_may(said: object) -> None:
    with pytest.raises(InvalidInput, match="only addresses and secrets come from the environment"):
        check_references(said)
