"""A plan says whether it fits in memory, and what does not fit is refused while everything stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endpoints.models import write_model
from turnout.core.errors import Failure
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import serving

SPEC = """\
server: {access_log: "off", memory_limit: 600MiB}
endpoints:
  fraud: {versions: {v1: {model: v1.py}}}
"""


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "v1.py", 2.0)
    write_model(tmp_path / "v2.py", 3.0)
    path = tmp_path / "turnout.yaml"
    path.write_text(SPEC)
    with serving("--spec", str(path)) as server:

        def ask(do: str, versions: str) -> dict[str, object]:
            document = SPEC.replace("{v1: {model: v1.py}}", versions)
            found: dict[str, object] = ask_here(server.port, {"do": do, "document": document, "path": str(path)})
            return found

        small = ask("plan", "{v1: {model: v1.py}, v2: {model: v2.py}}")
        assert small["fits"] is True, small["text"]
        assert "memory: fits" in str(small["text"])
        large = "{v1: {model: v1.py}, v2: {model: v2.py, replicas: 9}}"
        assert ask("plan", large)["fits"] is False
        with pytest.raises(Failure, match="does not fit in memory"):
            ask("apply_document", large)
        assert ask_here(server.port, {"do": "history"})["current"] == 1
        assert server.request("POST", "/predict/fraud", {"x": [1.0]}).json()["predictions"] == [{"score": 2.0}]
        ask("apply_document", "{v1: {model: v1.py}, v2: {model: v2.py}}")
        assert ask_here(server.port, {"do": "history"})["current"] == 2
