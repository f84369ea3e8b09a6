"""A real S3 server (SeaweedFS) on this machine, with one key pair and the buckets a test asks for."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from types import TracebackType
from typing import Self

REGION = "us-east-1"
_GRPC = 10_000  # the server's own distance between a port and its gRPC port


class S3Server:
    """Started by `with`; everything it keeps is in the directory, and goes with it.

    endpoint: "http://127.0.0.1:PORT". key, secret: the only pair that it knows. bucket: one that exists.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = "turnout-test"
        self.secret = "not-much-of-a-secret"  # of a server that only this machine reaches, for minutes
        self.bucket = "models"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What clients of S3 read from their environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def __enter__(self) -> Self:
        last = ""
        for _ in range(3):  # a port that was free may be taken before the server has it
            if self._start():
                self.make_bucket(self.bucket)
                return self
            last = (self.directory / "log").read_text(errors="replace")[-2000:]
            self.stop()
        raise RuntimeError(f"SeaweedFS did not start: {last}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self) -> bool:
        data = self.directory / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        keys = {"accessKey": self.key, "secretKey": self.secret}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = self.directory / "s3.json"
        config.write_text(json.dumps({"identities": [{"name": "test", "credentials": [keys], "actions": actions}]}))
        ports = dict(zip(("master", "volume", "filer", "s3"), _free_ports(4), strict=True))
        self.port = ports["s3"]
        program = Path(sys.executable).with_name("weed")
        command = [str(program), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
        command += [f"-{name}.port={port}" for name, port in ports.items()]
        command += [f"-{name}.port.grpc={port + _GRPC}" for name, port in ports.items()]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        # Fewer volumes than buckets ask for end in "failed to find writable volumes".
        command += [f"-s3.config={config}", "-volume.max=200", "-master.volumeSizeLimitMB=128"]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.directory
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.call("GET", "/")[0] == 200 and self.call("PUT", "/is-it-up")[0] in {200, 409}:
                    status, _ = self.call("PUT", "/is-it-up/now", b"yes")
                    if status == 200:
                        return True
            time.sleep(0.1)
        return False

    def stop(self) -> None:
        """Ends it at once: it has nothing to keep, and is slow to stop by itself."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def make_bucket(self, name: str) -> None:
        status, text = self.call("PUT", f"/{name}")
        assert status == 200, text

    def put(self, name: str, content: bytes, bucket: str = "") -> None:
        """Writes an object into the bucket, or into another."""
        status, text = self.call("PUT", f"/{bucket or self.bucket}/{name}", content)
        assert status == 200, text

    def delete(self, name: str, bucket: str = "") -> None:
        status, text = self.call("DELETE", f"/{bucket or self.bucket}/{name}")
        assert status == 204, text

    def call(self, method: str, path: str, body: bytes = b"", query: str = "") -> tuple[int, str]:
        """One signed request (AWS Signature Version 4): status and body. `query` is encoded and sorted already."""
        now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        path = urllib.parse.quote(path)
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": f"127.0.0.1:{self.port}", "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        asked = hashlib.sha256(f"{method}\n{path}\n{query}\n{lines}\n{names}\n{digest}".encode()).hexdigest()
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        key = f"AWS4{self.secret}".encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{asked}"):
            key = hmac.digest(key, part.encode(), "sha256")
        who = f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            url = f"{path}?{query}" if query else path
            connection.request(method, url, body, {**headers, "authorization": who})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose gRPC ports are too. Below what the system gives away by itself."""
    found: list[int] = []
    for port in range(12_000 + os.getpid() % 8_000, 22_000):
        with contextlib.ExitStack() as sockets, contextlib.suppress(OSError):
            for number in (port, port + _GRPC):
                listener = sockets.enter_context(socket.socket())
                listener.bind(("127.0.0.1", number))
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("there are no free ports")
