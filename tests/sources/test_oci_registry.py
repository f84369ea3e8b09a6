"""Models out of a real OCI registry: artifacts, packages, images; with logins, tokens, cut connections and damage."""

from __future__ import annotations

import base64
import gzip
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cutting import CuttingProxy
from oci_registry import EMPTY_CONFIG, OCI_CONFIG, OCI_INDEX, PASSWORD, TITLE, USER, OciRegistry, digest_of

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources.oci import OciSource
from turnout.deploy.sources.source import SourceSettings

pytestmark = pytest.mark.registry
SETTINGS = SourceSettings(attempts=3, timeout=10.0, retry_wait=0.01)
TAR = "application/vnd.oci.image.layer.v1.tar"
BLOB = bytes(range(256)) * 8192
UNPACK = "io.deis.oras.content.unpack"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OciRegistry]:
    with OciRegistry(tmp_path_factory.mktemp("oci")) as found:
        yield found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's logins but the test's own."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    return tmp_path / "docker"


def tar_of(files: dict[str, bytes], *, packed: bool = False) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz" if packed else "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def fetched(uri: str, into: Path, settings: SourceSettings = SETTINGS) -> dict[str, bytes]:
    pinned = OciSource().resolve(uri, settings)
    assert OciSource().resolve(pinned.pinned, settings).pinned == pinned.pinned
    into.mkdir(exist_ok=True)
    told: list[tuple[str, int, int]] = []
    OciSource().fetch(pinned, into, settings, lambda *told_now: told.append(told_now))
    assert told[-1][1] == told[-1][2] == pinned.nbytes
    files = {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}
    assert not pinned.file or list(files) == [pinned.file]
    return files


def test_an_artifact_s_layers_are_files_under_their_titles(registry: OciRegistry, tmp_path: Path) -> None:
    layers = [
        ("application/octet-stream", BLOB, {TITLE: "model.onnx"}),
        (TAR, b"{}", {TITLE: "config/about.json"}),  # the common clients call any file a tar
    ]
    digest = registry.push("team/iris", "v1", layers)
    pinned = OciSource().resolve(f"oci://{registry.host}/team/iris:v1", SETTINGS)
    assert pinned.pinned == f"oci://{registry.host}/team/iris@{digest}"
    assert pinned.nbytes == len(BLOB) + 2
    files = fetched(f"oci://{registry.host}/team/iris:v1", tmp_path / "into")
    assert files == {"model.onnx": BLOB, "config/about.json": b"{}"}


def test_a_single_file_is_known_before_it_is_fetched(registry: OciRegistry, tmp_path: Path) -> None:
    registry.push("one", "latest", [("application/onnx", b"content", {TITLE: "model.onnx"})])
    assert OciSource().resolve(f"oci://{registry.host}/one", SETTINGS).file == "model.onnx"
    assert fetched(f"oci://{registry.host}/one", tmp_path / "into") == {"model.onnx": b"content"}


def test_a_tag_that_moves_is_another_artifact_and_the_old_one_stays(registry: OciRegistry, tmp_path: Path) -> None:
    uri = f"oci://{registry.host}/moves:stable"
    registry.push("moves", "stable", [("a/b", b"old", {TITLE: "m"})])
    old = OciSource().resolve(uri, SETTINGS)
    registry.push("moves", "stable", [("a/b", b"new", {TITLE: "m"})])
    assert OciSource().resolve(uri, SETTINGS).pinned != old.pinned
    assert fetched(old.pinned, tmp_path / "old") == {"m": b"old"}
    assert fetched(uri, tmp_path / "new") == {"m": b"new"}


def test_packages_of_archives_are_unpacked_and_data_sets_left_out(registry: OciRegistry, tmp_path: Path) -> None:
    kit = "application/vnd.kitops.modelkit"
    layers = [
        (f"{kit}.model.v1.tar+gzip", tar_of({"model.pkl": b"m"}, packed=True), {}),
        (f"{kit}.code.v1.tar", tar_of({"./code/score.py": b"c"}), {}),
        (f"{kit}.dataset.v1.tar", tar_of({"rows.csv": b"d"}), {}),
    ]
    registry.push("kit", "v1", layers, f"{kit}.config.v1+json")
    assert fetched(f"oci://{registry.host}/kit:v1", tmp_path / "kit") == {"model.pkl": b"m", "code/score.py": b"c"}
    pack = "application/vnd.cncf.model"
    layers = [
        (f"{pack}.weight.v1.raw", b"w", {"org.cncf.model.filepath": "model.safetensors"}),
        (f"{pack}.weight.config.v1.tar", tar_of({"config.json": b"{}"}), {"org.cncf.model.filepath": "config.json"}),
    ]
    registry.push("pack", "v1", layers, f"{pack}.config.v1+json")
    found = fetched(f"oci://{registry.host}/pack:v1", tmp_path / "pack")
    assert found == {"model.safetensors": b"w", "config.json": b"{}"}
    layers = [(f"{TAR}+gzip", tar_of({"iris/MLmodel": b"y"}, packed=True), {TITLE: "iris", UNPACK: "true"})]
    registry.push("directory", "v1", layers)
    assert fetched(f"oci://{registry.host}/directory:v1", tmp_path / "directory") == {"iris/MLmodel": b"y"}


def test_an_image_s_models_come_out_of_its_layers(registry: OciRegistry, tmp_path: Path) -> None:
    below = tar_of({"etc/passwd": b"root", "models/old.bin": b"o", "models/1/model.onnx": b"1", "models/a/b": b"b"})
    link = io.BytesIO(below)
    with tarfile.open(fileobj=link, mode="a") as tar:  # a link elsewhere in the image is nobody's matter
        member = tarfile.TarInfo("bin/sh")
        member.type, member.linkname = tarfile.SYMTYPE, "/bin/busybox"
        tar.addfile(member)
    above = tar_of(
        {"./models/.wh.old.bin": b"", "models/1/model.onnx": b"2", "models/a/.wh..wh..opq": b""}, packed=True
    )
    layers = [(TAR, link.getvalue(), {}), (f"{TAR}+gzip", above, {})]
    image = registry.push("image", "arm", layers, OCI_CONFIG)
    files = {"1/model.onnx": b"2"}
    assert fetched(f"oci://{registry.host}/image:arm", tmp_path / "image") == files
    other = registry.push("image", "x", [(TAR, tar_of({"app/main.py": b""}), {})], OCI_CONFIG)
    with pytest.raises(SourceFailed, match="without files in /models; at its top there are: app"):
        fetched(f"oci://{registry.host}/image:x", tmp_path / "none")
    mine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    entries = [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
         "platform": {"os": "linux", "architecture": machine}}
        for digest, machine in ((other, "s390x"), (image, mine), (other, "unknown"))
    ]  # fmt: skip
    registry.put_manifest("image", "all", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    assert fetched(f"oci://{registry.host}/image:all", tmp_path / "all") == files


def test_what_another_client_pushed_is_read(registry: OciRegistry, tmp_path: Path) -> None:
    """skopeo pushes an image from a directory in OCI layout."""
    layout = tmp_path / "layout"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, kind: str) -> dict[str, object]:
        digest = digest_of(content)
        (blobs / digest[7:]).write_bytes(content)
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    content = tar_of({"models/model.onnx": BLOB})
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(content)]}}
    layer = blob(gzip.compress(content), f"{TAR}+gzip")
    manifest = {"schemaVersion": 2, "config": blob(json.dumps(config).encode(), OCI_CONFIG), "layers": [layer]}
    entry = blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    target = f"docker://{registry.host}/skopeo/iris:v1"
    for more in ([], ["--format", "v2s2"]):  # as OCI, and in Docker's older form
        command = ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", *more, f"oci:{layout}:v1", target]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        into = tmp_path / f"into{len(more)}"
        assert fetched(f"oci://{registry.host}/skopeo/iris:v1", into) == {"model.onnx": BLOB}


def test_a_cut_connection_is_resumed_where_it_broke(registry: OciRegistry, tmp_path: Path) -> None:
    registry.push("large", "v1", [("a/b", BLOB, {TITLE: "model.bin"})])
    with CuttingProxy(registry.port) as proxy:
        proxy.cuts = [300_000, 900_000, 5]
        found = fetched(f"oci://127.0.0.1:{proxy.port}/large:v1", tmp_path / "into")
    assert found == {"model.bin": BLOB}
    blobs = [line.partition("Range: ")[2] for line in proxy.seen if "/blobs/" in line]
    starts = [int(one.removeprefix("bytes=").rstrip("-") or 0) for one in blobs]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert starts[-1] > 1_000_000


def test_what_an_interrupted_fetch_left_is_used_if_it_is_right(registry: OciRegistry, tmp_path: Path) -> None:
    registry.push("left", "v1", [("a/b", BLOB, {TITLE: "model.bin"})])
    for left, start in ((BLOB[:500_000], "bytes=500000-"), (b"x" * 500_000, "bytes=500000-"), (BLOB, "")):
        into = tmp_path / str(len(left)) / start / str(left[0])
        into.mkdir(parents=True)
        (into / "model.bin").write_bytes(left)
        with CuttingProxy(registry.port) as proxy:
            assert fetched(f"oci://127.0.0.1:{proxy.port}/left:v1", into) == {"model.bin": BLOB}
        blobs = [line.partition("Range: ")[2] for line in proxy.seen if "/blobs/" in line]
        assert blobs[:1] == ([start] if start else [])


def test_a_registry_that_stays_away_is_said_to_be_away(registry: OciRegistry, tmp_path: Path) -> None:
    registry.push("cut", "v1", [("a/b", BLOB, {TITLE: "model.bin"})])
    with CuttingProxy(registry.port) as proxy:
        uri = f"oci://127.0.0.1:{proxy.port}/cut:v1"
        pinned = OciSource().resolve(uri, SETTINGS)
        proxy.cuts = [700] * 50
        with pytest.raises(SourceFailed, match=r"did not answer .* at byte \d+ of 'model.bin'") as caught:
            OciSource().fetch(pinned, tmp_path, SETTINGS, lambda *_: None)
        assert caught.value.retryable
    with pytest.raises(SourceFailed, match="nobody listens there") as caught:
        OciSource().resolve(uri, SETTINGS)
    assert caught.value.retryable


def test_a_blob_that_is_not_what_its_digest_says_is_refused(registry: OciRegistry, tmp_path: Path) -> None:
    digest = registry.push("damaged", "v1", [("a/b", b"as it was", {TITLE: "model.bin"})])
    pinned = OciSource().resolve(f"oci://{registry.host}/damaged:v1", SETTINGS)
    blob = digest_of(b"as it was").removeprefix("sha256:")
    data = next((registry.directory / "data").rglob(f"blobs/sha256/{blob[:2]}/{blob}/data"))
    data.write_bytes(b"is it not")
    with pytest.raises(SourceFailed, match="is not what it should be: its sha256 is"):
        OciSource().fetch(pinned, tmp_path, SETTINGS, lambda *_: None)
    name = digest.removeprefix("sha256:")
    manifest = next((registry.directory / "data").rglob(f"blobs/sha256/{name[:2]}/{name}/data"))
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(SourceFailed, match=r"was asked for|answered 500|did not answer|no such"):
        OciSource().resolve(f"oci://{registry.host}/damaged@{digest}", SETTINGS)


def test_what_is_not_there_is_named_with_what_is(registry: OciRegistry) -> None:
    registry.push("named", "v7", [("a/b", b"x", {TITLE: "m"})])
    with pytest.raises(SourceFailed, match="has no 'v8'; there are: v7"):
        OciSource().resolve(f"oci://{registry.host}/named:v8", SETTINGS)
    with pytest.raises(SourceFailed, match="no such repository, or nothing in it"):
        OciSource().resolve(f"oci://{registry.host}/nobody:v8", SETTINGS)
    with pytest.raises(SourceFailed, match=f"has no 'sha256:{'0' * 64}'"):
        OciSource().resolve(f"oci://{registry.host}/named@sha256:{'0' * 64}", SETTINGS)


def test_what_cannot_be_read_says_why(registry: OciRegistry, tmp_path: Path) -> None:
    cases = {
        "zstd": ([("application/vnd.cncf.model.weight.v1.tar+zstd", b"x", {})], EMPTY_CONFIG, "zstd"),
        "untitled": ([("application/octet-stream", b"x", {})], EMPTY_CONFIG, "nobody knows which file it is"),
        "none": ([], EMPTY_CONFIG, "has no layers"),
        "broken": ([(TAR, b"no archive" * 99, {})], OCI_CONFIG, "no readable archive"),
        "out": ([("a/b", b"x", {TITLE: "../out"})], EMPTY_CONFIG, "no name inside a directory"),
        "twice": ([("a/b", b"x", {TITLE: "m"}), ("a/b", b"y", {TITLE: "m"})], EMPTY_CONFIG, "two files"),
    }
    for name, (layers, config, why) in cases.items():
        registry.push(f"bad/{name}", "v1", layers, config)
        with pytest.raises(LoadFailed, match=why):
            fetched(f"oci://{registry.host}/bad/{name}:v1", tmp_path / name)
    registry.push("limit", "v1", [("a/b", BLOB, {TITLE: "m"})])
    with pytest.raises(SourceFailed, match="max_artifact_bytes"):
        fetched(f"oci://{registry.host}/limit:v1", tmp_path / "limit", SourceSettings(max_artifact_bytes=1000))


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_login_is_asked_of_those_who_keep_it(auth: str, tmp_path: Path, home: Path) -> None:
    with OciRegistry(tmp_path / "registry", auth) as registry:
        registry.push("private/iris", "v1", [("a/b", b"content", {TITLE: "m"})])
        uri = f"oci://{registry.host}/private/iris:v1"
        with pytest.raises(SourceFailed, match=r"does not know who asks \(401\).*docker login"):
            OciSource().resolve(uri, SETTINGS)
        for secret, works in (("wrong", False), (PASSWORD, True)):
            login = base64.b64encode(f"{USER}:{secret}".encode()).decode()
            (home / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))
            if works:
                assert fetched(uri, tmp_path / "into") == {"m": b"content"}
            else:
                with pytest.raises(SourceFailed, match="does not know who asks") as caught:
                    OciSource().resolve(uri, SETTINGS)
                assert secret not in str(caught.value)
                assert not caught.value.retryable
        if registry.tokens:
            assert set(registry.tokens.given) == {"repository:private/iris:pull"}


def test_a_program_that_keeps_logins_is_asked(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "bin" / "docker-credential-of-the-tests"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\nread server\necho '{json.dumps({'Username': USER, 'Secret': PASSWORD})}'\n")
    helper.chmod(0o755)
    with OciRegistry(tmp_path / "registry", "basic") as registry:
        registry.push("iris", "v1", [("a/b", b"content", {TITLE: "m"})])
        (home / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "of-the-tests"}}))
        uri = f"oci://{registry.host}/iris:v1"
        with pytest.raises(SourceFailed, match="docker-credential-of-the-tests, which is not installed"):
            OciSource().resolve(uri, SETTINGS)
        monkeypatch.setenv("PATH", f"{helper.parent}:/usr/bin:/bin")
        assert OciSource().resolve(uri, SETTINGS).file == "m"


@pytest.mark.parametrize(
    "uri",
    [
        "oci://host",
        "oci://host/UPPER",
        "oci://user:secret@host/a",
        "oci://host/a@sha256:12",
        "oci:///a",
        "oci://h/../a",
    ],
)
def test_what_is_no_uri_is_refused_without_its_secrets(uri: str) -> None:
    with pytest.raises(SourceFailed, match="is no URI of an OCI artifact") as caught:
        OciSource().resolve(uri, SETTINGS)
    assert "secret" not in str(caught.value)


def test_plain_http_is_for_this_machine_and_for_hosts_that_are_named() -> None:
    settings = SourceSettings(attempts=1, timeout=2.0, options={"oci": {"insecure": "127.0.0.2:1, localhost:1"}})
    with pytest.raises(SourceFailed, match="http://localhost:1/"):
        OciSource().resolve("oci://localhost:1/a", settings)
    with pytest.raises(SourceFailed, match=r"https://registry\.invalid/"):
        OciSource().resolve("oci://registry.invalid/a", settings)
