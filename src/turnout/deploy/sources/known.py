"""Every kind of place that artifacts come from: the visible list. A further one is one file, and one line here."""

from __future__ import annotations

from turnout.deploy.sources.file import FileSource
from turnout.deploy.sources.git import GitSource
from turnout.deploy.sources.https import HttpsSource
from turnout.deploy.sources.huggingface import HuggingFaceSource
from turnout.deploy.sources.mlflow import MlflowSource
from turnout.deploy.sources.object_store import ObjectStoreSource
from turnout.deploy.sources.oci import OciSource
from turnout.deploy.sources.source import Source

#: The library of an extra is imported when it is first used.
SOURCES: tuple[Source, ...] = (
    FileSource(),
    HttpsSource(),
    GitSource(),
    ObjectStoreSource("s3"),
    ObjectStoreSource("gs"),
    ObjectStoreSource("az"),
    OciSource(),
    HuggingFaceSource(),
    MlflowSource(),
)
