"""`turnout.yaml`: what it says is what is served; what it cannot mean is refused by its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnout.core.errors import InvalidInput
from turnout.deploy.spec_file import read_spec
from turnout.deploy.supply import split_signature
from turnout.entrypoints.supplies import name_of


def write(folder: Path, text: str) -> Path:
    path = folder / "turnout.yaml"
    path.write_text(text)
    return path


def test_everything_in_one_file(tmp_path: Path) -> None:
    found = read_spec(
        write(
            tmp_path,
            """
            models:
              - name: fraud
                artifact: models/fraud
                versions: {latest: 2}
                labels: {stable: 2}
                environment: [numpy==1.26.4, scipy]
                batching: {max_rows: 8}
                signature: fraud.json
                watch: 5
              - {name: churn, artifact: "models:/churn@champion", version: 3, environment: env/requirements.txt}
              - {name: code, artifact: "pkg.models:Churn"}
            server: {port: 0, grpc_port: 0, default_deadline: 2, access_log: "off"}
            sources: {allowed_hosts: [models.example.com], options: {s3: {endpoint: "http://localhost:1"}}}
            environments: {wheels: [wheels], public: false, index_urls: ["https://packages.example.com/simple"]}
            """,
        )
    )
    fraud, churn, code = found.spec.models
    assert fraud.artifact == str(tmp_path / "models/fraud"), "a path counts from the file"
    assert (str(fraud.versions), fraud.labels, fraud.environment) == (
        "latest:2", (("stable", "2"),), ("numpy==1.26.4", "scipy"),
    )  # fmt: skip
    assert (fraud.batching.max_rows, fraud.signature, fraud.watch) == (8, str(tmp_path / "fraud.json"), 5.0)
    assert (churn.artifact, churn.version) == ("models:/churn@champion", "3")
    assert churn.environment == str(tmp_path / "env/requirements.txt")
    assert code.artifact == "pkg.models:Churn"
    assert (found.spec.port, found.spec.default_deadline, found.spec.access_log) == (0, 2.0, "off")
    assert found.sources.allowed_hosts == ("models.example.com",)
    assert found.sources.options["s3"] == {"endpoint": "http://localhost:1"}
    assert (found.environments.wheels, found.environments.public) == ((tmp_path / "wheels",), False)


MODEL = "models: [{name: a, artifact: a.onnx%s}]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a mapping"),
        ("models: []", "models: at least one model or endpoint is needed"),
        ("models: [7]", r"models\[0\]: not a mapping"),
        ("models: [{artifact: a.onnx}]", r"models\[0\]\.name: missing"),
        ("model: [{}]", "model: unknown; expected one of models, endpoints, server"),
        (MODEL % ", colour: red", r"models\[0\]\.colour: unknown; expected one of name, artifact"),
        (MODEL % ", replicas: two", r"models\[0\]\.replicas: of the wrong kind; expected a whole number; got 'two'"),
        (MODEL % ", replicas: true", "expected a whole number; got True"),
        (MODEL % ", trust_pickle: 1", "expected true or false; got 1"),
        (MODEL % ", versions: newest", r"models\[0\]\.versions: not a version policy; expected latest:2, all"),
        (MODEL % ", labels: {7: '1'}", "not a mapping|not a label"),
        (MODEL % ", labels: {a-b: '1'}", r"models\[0\]\.labels\.a-b: not a label"),
        (MODEL % ", environment: 7", r"models\[0\]\.environment: not an environment"),
        (MODEL % ", batching: {max_rows: 0}", "max_rows: too small"),
        (MODEL % ", batching: {rows: 1}", r"models\[0\]\.batching\.rows: unknown"),
        (MODEL % ", on_change: ask", r"models\[0\]\.on_change: .*expected apply or plan"),
        (MODEL % "" + "\nserver: {port: web}", r"server\.port: of the wrong kind"),
        (MODEL % "" + "\nserver: {models: []}", r"server\.models: unknown"),
        (MODEL % "" + "\nsources: {allowed_hosts: one}", r"sources\.allowed_hosts: .*expected a list of texts"),
        (MODEL % "" + "\nenvironments: {offline: maybe}", r"environments\.offline: .*expected true or false"),
        (MODEL % "" + "\nenvironments: {index_urls: [packages]}", r"index_urls: not the address of .*; got 'packages'"),
        ("models: [", "turnout.yaml:1: not YAML"),
    ],
)
def test_what_it_cannot_mean_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidInput, match=said) as refused:
        read_spec(path)
    assert refused.value.message.startswith("turnout.yaml"), "which of the files is meant"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_spec(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("artifact", "place", "mark"),
    [
        ("s3://b/m#serving_default", "s3://b/m", "#serving_default"), ("s3://b/m#etag=7", "s3://b/m#etag=7", ""),
        ("models:/iris/3#m-12", "models:/iris/3#m-12", ""), ("s3://b/m", "s3://b/m", ""), ("a#b", "a#b", ""),
    ],
)  # fmt: skip
def test_a_signature_is_chosen_behind_the_uri(artifact: str, place: str, mark: str) -> None:
    assert split_signature(artifact) == (place, mark)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("models:/iris@champion", "iris"), ("models:/iris/3", "iris"), ("runs:/0123/model", "model"),
        ("s3://bucket/models/fraud.onnx", "fraud"), ("s3://bucket/models/fraud/", "fraud"), ("s3://bucket", "bucket"),
        ("oci://host:5000/team/churn:v2", "churn"), ("oci://host:5000/team/churn@sha256:ab", "churn"),
        ("hf://org/tiny-bert@main", "tiny-bert"), ("https://h/a/iris.tar.gz?x=1", "iris"),
        ("git+https://h/repo.git@v1#subdirectory=m", "repo"),
    ],
)  # fmt: skip
def test_a_model_is_called_as_its_place_calls_it(uri: str, name: str) -> None:
    assert name_of(uri) == name
