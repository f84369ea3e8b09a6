"""The demonstration: train two real models, serve them, ask them, look at the answers, stop cleanly."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import train

TURNOUT = Path(sys.executable).with_name("turnout")
CLIENTS = 8
SECONDS = 3.0


def say(text: str) -> None:
    """Prints a line of the story."""
    print(text, flush=True)


def serve(*models: str) -> tuple[subprocess.Popen[str], int]:
    """Starts `turnout serve` on free ports; returns the process and its HTTP port once it is ready."""
    command = [str(TURNOUT), "serve", *models, "--port", "0", "--grpc-port", "0", "--access-log", "off"]
    say(f"$ turnout {' '.join(command[1:])}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    port = 0
    for line in process.stdout or ():
        say(f"  {line.rstrip()}")
        if found := re.search(r"REST\s+http://[^:]+:(\d+)", line):
            port = int(found[1])
        if line.lstrip().startswith("curl"):
            return process, port
    raise SystemExit("turnout serve ended before it was ready")


def ask(connection: http.client.HTTPConnection, path: str, body: Any) -> Any:
    """One POST with a JSON body; returns the JSON answer."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path} answered {answer.status}: {text.decode()}")
    return json.loads(text)


def throughput(port: int, rows: list[list[float]]) -> float:
    """Requests a second that a few plain Python clients get answered, one row each."""
    counts = [0] * CLIENTS
    end = time.monotonic() + SECONDS

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while time.monotonic() < end:
            ask(connection, "/predict/digits", [rows[(counts[number] * CLIENTS + number) % len(rows)]])
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def show_answers(port: int, cancer: train.Trained, digits: train.Trained) -> None:
    """Asks both models about rows they have never seen and compares with the truth."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    record = dict(zip(cancer.columns, cancer.rows[0].tolist(), strict=True))
    answer = ask(connection, "/predict/cancer", record)["predictions"][0]
    say(f"cancer: one record by column names, POST /predict/cancer\n    answer {answer}   truth {cancer.truth[0]}")

    tensor = {"name": "X", "shape": list(digits.rows.shape), "datatype": "FP32", "data": digits.rows.ravel().tolist()}
    outputs = ask(connection, "/v2/models/digits/infer", {"inputs": [tensor]})["outputs"]
    labels = next(output["data"] for output in outputs if output["datatype"] == "INT64")
    right = sum(int(a == b) for a, b in zip(labels, digits.truth.tolist(), strict=True))
    say(
        f"digits: {len(labels)} pictures in one request, POST /v2/models/digits/infer\n"
        f"    {right} of {len(labels)} right; the first ten: {labels[:10]}   truth {digits.truth[:10].tolist()}"
    )


def main() -> None:
    """Runs the whole story; fails loudly if any part of it fails."""
    with tempfile.TemporaryDirectory(prefix="turnout-demo-") as folder:
        say("Training on scikit-learn's bundled data ...")
        cancer, digits = train.cancer(Path(folder)), train.digits(Path(folder))
        process, port = serve(f"cancer={cancer.path}", f"digits={digits.path}")
        try:
            say("")
            show_answers(port, cancer, digits)
            rate = throughput(port, digits.rows.tolist())
            say(
                f"throughput: {rate:,.0f} single-row requests a second from {CLIENTS} Python clients on this machine\n"
                "    (the clients are the slow part: `make bench` measures the server)"
            )
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=40)
        say(f"stopped cleanly (exit code {code})" if code == 0 else f"stopped with exit code {code}")
        if code != 0:
            raise SystemExit(1)
    say(
        "\nWhere to look next:\n"
        "  .venv/bin/turnout serve your-model.onnx   then open http://127.0.0.1:8080/docs\n"
        "  docs/tutorials/first-model.md     from a file to a service, step by step\n"
        "  docs/reference/                   protocols, formats, command line, metrics\n"
        "  make test                         the tests that need nothing else"
    )


if __name__ == "__main__":
    main()
