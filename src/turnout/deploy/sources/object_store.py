"""`s3:`, `gs:` and `az:` URIs, by obstore; this file is the only one that speaks to it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from turnout.core.errors import MissingExtra, SourceFailed
from turnout.deploy.sources.archives import is_archive
from turnout.deploy.sources.fragments import joined, parted, split
from turnout.deploy.sources.http_words import PASSING
from turnout.deploy.sources.manifest import MAX_FILES
from turnout.deploy.sources.source import Pinned, Progress, SourceMoved, SourceSettings, check_size
from turnout.deploy.sources.transfer import Remote, transfer

_CHUNK_BYTES = 1 << 20
_SECRET = re.compile(r"secret|password|token|sas_key|account_key|(?<!kms_)key_id|access_key")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_WHY = re.compile(r"<Code>([^<]{1,80})</Code>(?:\s*<Message>([^<]{1,200})</Message>)?")
_METADATA = "http://169.254.169.254"
#: By scheme: the class in obstore, its word for an endpoint, where that stands in the environment, what holds keys.
_STORES = {
    "s3": (
        "S3Store",
        "endpoint",
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "gs": ("GCSStore", "base_url", ("GOOGLE_BASE_URL",), "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": (
        "AzureStore",
        "endpoint",
        ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
        "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    ),
}


class ObjectStoreSource:
    """One kind of object store. A URI is the name of an object, or what the names of several begin with.

    Options: what obstore calls the configuration of that store ("endpoint", "region", "skip_signature" ...); what
    they leave out comes from the environment variables of that store's own tools.
    """

    extra = "s3"
    resumes = True
    retries = False

    def __init__(self, scheme: str) -> None:
        self.name = scheme
        self.schemes: tuple[str, ...] = (scheme,)

    def resolve(self, uri: str, settings: SourceSettings) -> Pinned:
        bucket = _Bucket(uri, settings)
        key = bucket.key
        found = bucket.object() if key and not bucket.is_directory else None
        objects = [("", found)] if found is not None else sorted(bucket.listing())
        if not objects:
            what = f"no object {key!a}, and none below {key + '/'!a}," if key else "no object"
            raise SourceFailed(f"there is {what} in the {bucket}")
        nbytes = sum(int(one["size"]) for _, one in objects)
        check_size(nbytes, settings.max_artifact_bytes)
        told = [[one["path"], name, one["size"], _tag(one), one.get("version") or ""] for name, one in objects]
        state = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        if bucket.said.get("state", state) != state:
            raise SourceFailed(f"{uri} is no longer what was pinned: an object was written or deleted since")
        file = key.rpartition("/")[2] if found is not None else ""
        is_packed = bool(file) and is_archive(file) and bucket.said.get("unpack") != "no"
        facts = {"objects": told}
        return Pinned(uri, joined(uri, {"state": state}), facts=facts, file=file, unpack=is_packed, nbytes=nbytes)

    def fetch(self, pinned: Pinned, into: Path, settings: SourceSettings, progress: Progress) -> None:
        bucket = _Bucket(pinned.pinned, settings)
        objects: Any = pinned.facts["objects"]
        remotes = [
            Remote(name or pinned.file, size, path, json.dumps([tag, version]))
            for path, name, size, tag, version in objects
        ]
        transfer(remotes, bucket.read, into, limit=settings.max_artifact_bytes, progress=progress)


class _Bucket:
    """A bucket (a container, in Azure) and what a URI says is wanted of it."""

    def __init__(self, uri: str, settings: SourceSettings) -> None:
        bare, self.said = parted(uri)
        parts = split(bare)
        if not parts.netloc or parts.query or "@" in parts.netloc:
            raise SourceFailed(f"{uri!a} is not of the form {parts.scheme or 's3'}://BUCKET/NAME")
        self.name = parts.netloc
        self.key = unquote(parts.path).strip("/")
        self.is_directory = parts.path.endswith("/")
        self._kind, endpoint_option, variables, self._keys = _STORES[parts.scheme.lower()]
        options = dict(settings.options.get(parts.scheme.lower(), {}))
        if secrets := sorted(name for name in options if _SECRET.search(name)):
            raise SourceFailed(
                f"the option {secrets[0]!a} is a credential, which has no place in a configuration; set {self._keys}"
            )
        named = [os.environ[name] for name in variables if os.environ.get(name)]
        self._endpoint = options.get(endpoint_option, named[0] if named else "")
        if self._endpoint:
            options[endpoint_option] = self._endpoint
        with self._failures("open"):
            self._store = self._opened(options, settings.timeout)

    def __str__(self) -> str:
        return f"bucket {self.name!a}" + (f" at {self._endpoint}" if self._endpoint else "")

    def object(self) -> Mapping[str, Any] | None:
        """The object of exactly the name that is wanted, if there is one."""
        with self._failures(f"look for {self.key!a} in"):
            try:
                found: Mapping[str, Any] = _obstore().head(self._store, self.key)
            except FileNotFoundError:
                return None
            return found

    def listing(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The objects below the wanted name, each by its name from there on."""
        prefix = f"{self.key}/" if self.key else ""
        count = 0
        with self._failures(f"list {prefix!a} in"):
            for several in _obstore().list(self._store, prefix or None):
                for one in several:
                    name = one["path"].removeprefix(prefix)
                    if not name or (one["size"] == 0 and one["path"].endswith("/")):
                        continue  # what consoles write to show an empty directory
                    count += 1
                    if count > MAX_FILES:
                        raise SourceFailed(f"there are more than {MAX_FILES} objects below {prefix!a} in the {self}")
                    yield name, one

    def read(self, remote: Remote, start: int, stop: int) -> Iterator[bytes]:
        """The bytes of an object, in the state in which it was pinned. Raises SourceMoved where it is in another."""
        tag, version = json.loads(remote.tag)
        options: dict[str, Any] = {"range": (start, stop)}
        if tag.startswith('"'):
            options["if_match"] = tag
        if version:
            options["version"] = version
        with self._failures(f"get {remote.key!a} from", remote.key):
            answer = _obstore().get(self._store, remote.key, options=options)
            if answer.meta["size"] != remote.size or _tag(answer.meta) != tag or answer.range[0] != start:
                raise SourceMoved(f"{remote.key!a} in the {self} was replaced while it was fetched")
            for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
                yield bytes(chunk)

    def _opened(self, options: Mapping[str, str], timeout: float) -> Any:
        stores = _obstore().store
        seconds = timedelta(seconds=timeout)
        # One request brings 32 MiB at most; a line that needs longer than ten time-outs for it is as good as dead.
        client = {
            "connect_timeout": min(seconds, timedelta(seconds=10)),
            "timeout": 10 * seconds,
            "read_timeout": seconds,
        }
        if self._endpoint.startswith("http://"):  # the operator's own word
            client["allow_http"] = True  # type: ignore[assignment]
        once = {"max_retries": 0, "retry_timeout": seconds}
        return getattr(stores, self._kind)(self.name, config=options, client_options=client, retry_config=once)

    @contextmanager
    def _failures(self, act: str, pinned: str = "") -> Iterator[None]:
        """Says what obstore raises in words of ours. pinned: an object that was there when the URI was resolved."""
        errors = _obstore().exceptions
        gone = f"{pinned!a} in the {self} was replaced or deleted while it was fetched"
        try:
            yield
        except errors.PreconditionError:
            raise SourceMoved(gone) from None
        except FileNotFoundError as problem:
            if pinned:
                raise SourceMoved(gone) from None
            raise self._failed(act, str(problem)) from None
        except (errors.BaseError, ValueError, TimeoutError) as problem:
            raise self._failed(act, str(problem)) from None

    def _failed(self, act: str, text: str) -> SourceFailed:
        asked = f"cannot {act} the {self}"
        status = _STATUS.search(text)
        why = _WHY.search(text)
        because = ": ".join(filter(None, why.groups())) if why else ""
        if _METADATA in text or "Credential" in text or "must be specified" in text:
            return SourceFailed(f"{asked}: there are no credentials; set {self._keys}")
        if status is not None:
            code = int(status[1])
            words = {
                401: "the key is not known",
                403: "the key is wrong, or may not do this",
                404: "there is no such bucket",
            }
            told = f"{words.get(code, 'it refused')} (HTTP {code}{', ' + because if because else ''})"
            return SourceFailed(f"{asked}: {told}", retryable=code in PASSING)
        for sign, reason in (
            ("Connection refused", "nobody listens there (connection refused)"),
            ("dns error", "its host is not known"),
            ("InvalidCertificate", "its certificate is not trusted"),
            ("timed out", "no answer in time"),
            ("TimedOut", "no answer in time"),
        ):
            if sign in text:
                return SourceFailed(
                    f"{asked}: {reason}", retryable=reason.startswith(("nobody", "no answer", "its host"))
                )
        brief = text.split("\n\nDebug source", maxsplit=1)[0].rsplit(" - ", maxsplit=1)[-1].strip()[:300]
        return SourceFailed(
            f"{asked}: {brief}", retryable="error sending" in text or "HTTP error" in text or "decod" in text
        )


def _tag(found: Mapping[str, Any]) -> str:
    """What changes when the object does: its entity tag, or where there is none when it was written."""
    return str(found.get("e_tag") or found["last_modified"].isoformat())


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError:
        raise MissingExtra(
            "s3:, gs: and az: need the library obstore; install it with: pip install 'turnout[s3]'"
        ) from None
    return obstore
