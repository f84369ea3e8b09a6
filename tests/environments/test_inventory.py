"""What an environment holds is written down as other programs read it, and looked up where faults are known."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.environments.index import serving
from tests.environments.wheels import make_wheel, sha256
from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.audit import audit
from turnout.deploy.environments.environment import Environment, IndexPolicy, Requirements
from turnout.deploy.environments.inventory import bill_of_materials
from turnout.deploy.environments.store import Environments

VALIDATOR = "cyclonedx-python-lib[json-validation]>=11,<12"
VALIDATE = (
    "import sys; from cyclonedx.schema import SchemaVersion\n"
    "from cyclonedx.validation.json import JsonStrictValidator\n"
    "found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()); print(found or 'valid')"
)


@pytest.fixture
def built(environments: Environments, wheels: Path) -> Environment:
    scores, numpy = (next(wheels.glob(f"{name}*.whl")) for name in ("scores-", "numpy-2"))
    lines = (f"numpy==2.4.0 --hash=sha256:{sha256(numpy)}", f"scores==1.0 --hash=sha256:{sha256(scores)}")
    return environments.ensure(Requirements(lines, origin="requirements.lock"))


def test_the_bill_says_what_is_there(built: Environment, wheels: Path) -> None:
    bill = bill_of_materials(built)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert [(one["name"], one["version"], one["purl"]) for one in bill["components"]] == [
        ("numpy", "2.4.0", "pkg:pypi/numpy@2.4.0"),
        ("scores", "1.0", "pkg:pypi/scores@1.0"),
    ]
    scores = bill["components"][1]
    assert scores["licenses"] == [{"expression": "MIT"}]
    assert scores["hashes"] == [{"alg": "SHA-256", "content": sha256(next(wheels.glob("scores-*.whl")))}]
    needs = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    assert needs["pkg:pypi/scores@1.0"] == ["pkg:pypi/numpy@2.4.0"]
    assert needs[f"environment:{built.digest}"] == ["pkg:pypi/numpy@2.4.0", "pkg:pypi/scores@1.0"]


def test_the_same_environment_gives_the_same_bill(built: Environment) -> None:
    assert bill_of_materials(built) == bill_of_materials(built)


def test_licences_in_every_form(environments: Environments, tmp_path: Path) -> None:
    texts = {
        "expressed": ("License-Expression: Apache-2.0 OR MIT", {"expression": "Apache-2.0 OR MIT"}),
        "classified": ("Classifier: License :: OSI Approved :: MIT License", {"license": {"id": "MIT"}}),
        "vague": ("Classifier: License :: OSI Approved :: BSD License", {"license": {"name": "BSD License"}}),
        "named": ("License: Our own\n        and more of it", {"license": {"name": "Our own"}}),
        "silent": ("License: UNKNOWN", None),
    }
    make_wheel(tmp_path / "wheels", "numpy", "2.0")
    for name, (header, _) in texts.items():
        make_wheel(tmp_path / "wheels", name, licence=header)
    store = Environments(environments.root, IndexPolicy(wheels=(tmp_path / "wheels",), offline=True))
    bill = bill_of_materials(store.ensure(Requirements(tuple(texts))))
    found = {one["name"]: one.get("licenses", [None])[0] for one in bill["components"]}
    assert found == {"numpy": {"expression": "MIT"}, **{name: wanted for name, (_, wanted) in texts.items()}}


@pytest.mark.slow
def test_the_bill_is_valid_by_its_own_schema(built: Environment, tmp_path: Path) -> None:
    """Judged by another project's validator, in an environment built for it."""
    tool = Environments(tmp_path / "tools").ensure(Requirements((VALIDATOR,)))
    for document in (bill_of_materials(built), bill_of_materials(tool)):
        ended = subprocess.run(
            [tool.python, "-I", "-c", VALIDATE], input=json.dumps(document), capture_output=True, text=True, check=True
        )
        assert ended.stdout == "valid\n", ended.stdout


def test_an_audit_that_may_ask_nobody_is_none(built: Environment, environments: Environments) -> None:
    with pytest.raises(EnvironmentFailed, match=r"not audited: the public index.* may not be asked"):
        audit(built, environments, print)


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    """A vulnerability service that knows one fault of numpy, in OSV's protocol."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            vulns = []
            if asked["package"]["name"] == "numpy":
                fixed = [{"introduced": "0"}, {"fixed": "2.4.1"}]
                affected = {"package": asked["package"], "ranges": [{"type": "ECOSYSTEM", "events": fixed}]}
                vulns = [{"id": "TEST-1", "aliases": ["CVE-0-1"], "summary": "a fault", "affected": [affected]}]
            body = json.dumps({"vulns": vulns} if vulns else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_an_audit_by_the_real_program(built: Environment, tmp_path: Path, service: ThreadingHTTPServer) -> None:
    tools = Environments(tmp_path / "tools")
    found = audit(built, tools, print, f"http://127.0.0.1:{service.server_port}/v1/query")
    (finding,) = found.findings
    assert (finding.package, finding.version, finding.id) == ("numpy", "2.4.0", "CVE-0-1")
    assert (finding.aliases, finding.fixed) == (("TEST-1",), ("2.4.1",))
    assert set(found.audited) == {"numpy", "scores"}
    assert not found.clean
    with serving(None) as silent:
        pass
    with pytest.raises(EnvironmentFailed, match="not audited: the vulnerability service gave no answer"):
        audit(built, tools, print, f"{silent.address}/v1/query")
