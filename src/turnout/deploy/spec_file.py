"""`turnout.yaml`: what is served, from where and how, in one file. Strict: what it does not know it refuses by path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from turnout.core.errors import InvalidInput
from turnout.deploy.document import Document, document_of
from turnout.deploy.document_text import read_text
from turnout.deploy.environments.environment import IndexPolicy
from turnout.deploy.problems import placed
from turnout.deploy.server_settings import environments_of, server_of, sources_of
from turnout.deploy.sources.source import SourceSettings
from turnout.deploy.spec import ServeSpec

_EXAMPLE = "models: [{name: fraud, artifact: fraud.onnx}]"


class SpecFile(NamedTuple):
    """Everything that a file says. document: as it is kept and compared; the rest has its references resolved."""

    spec: ServeSpec
    text: str
    sources: SourceSettings
    environments: IndexPolicy
    document: Document


def read_spec(path: Path) -> SpecFile:
    """The file's meaning, with what it includes; relative paths in it count from its own directory.

    Raises InvalidInput for all that is wrong, naming the file, the line and the key.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise InvalidInput(f"{path} cannot be read ({problem.strerror})", field="spec", example=_EXAMPLE) from None
    text = read_text(content, str(path))
    document = document_of(text)
    settings = document.settings
    try:
        document.check_environment()
        return SpecFile(
            replace(server_of(settings.get("server", {})), models=document.models),
            content.decode(),
            sources_of(settings.get("sources", {})),
            environments_of(settings.get("environments", {})),
            document,
        )
    except InvalidInput as problem:
        raise placed(problem, text.place) from None
