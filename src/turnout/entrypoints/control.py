"""`turnout status`, `versions`, `load`, `unload`, `label`, `apply`: a running server of yours, asked and told."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from turnout.entrypoints import guiding
from turnout.entrypoints.remote import ask

VERBS = ("status", "versions", "load", "unload", "label", "apply")


def words(verbs: Any) -> None:
    """Adds the verbs."""
    status = guiding.verb(verbs, "status", "what a running server serves, and why something is not served")
    status.add_argument("model", metavar="NAME", nargs="?", default="", help="of this model alone")
    versions = guiding.verb(verbs, "versions", "the versions of one model")
    versions.add_argument("model", metavar="NAME", help="the model's name")
    load = guiding.verb(verbs, "load", "load a model, or look anew at what there is of one")
    load.add_argument("model", metavar="NAME[=MODEL]", help="a name, with a path or URI where the name is new")
    load.add_argument("--version", metavar="VERSION", help="serve this version too")
    unload = guiding.verb(verbs, "unload", "unload a model, or one version of it")
    unload.add_argument("model", metavar="NAME[@VERSION]", help="the model's name")
    label = guiding.verb(verbs, "label", "move a label to a version that is loaded")
    label.add_argument("model", metavar="NAME", help="the model's name")
    label.add_argument("label", metavar="LABEL[=VERSION]", help="a label, without a version to take it away")
    apply = guiding.verb(verbs, "apply", "make a spec file the desired state; or serve what a watch has only planned")
    apply.add_argument("model", metavar="FILE|NAME", help="turnout.yaml, or a model's name")
    apply.add_argument(
        "--base", type=int, metavar="N", help="refuse unless this revision is in force (default: whichever is)"
    )
    apply.add_argument("--reason", metavar="TEXT", help="why, for the history")


def run(arguments: argparse.Namespace) -> int:
    """Asks and prints. Raises the failure that the server answers with, or NotReady where none runs there."""
    verb = arguments.verb
    if verb == "apply" and guiding.is_spec(arguments.model):
        return guiding.run(arguments)
    if verb in {"status", "versions"}:
        answer = ask(arguments.url, {"do": "status"})
        if arguments.model:
            known = answer["models"]
            answer["models"] = [model for model in known if model["name"] == arguments.model]
            if not answer["models"]:
                served = ", ".join(model["name"] for model in known)
                print(f"turnout: there is no model {arguments.model!r}; there is {served}", file=sys.stderr)
                return 1
        print(json.dumps(answer, indent=2) if arguments.output == "json" else table(answer["models"]))
        return 0
    answer = ask(arguments.url, _question(verb, arguments))
    print(json.dumps(answer, indent=2) if arguments.output == "json" else _told(verb, answer))
    return 0


def table(models: list[dict[str, Any]]) -> str:
    """The models and endpoints with their versions, for a person."""
    if not models:
        return "nothing is served; where the server was started just now, it is still loading"
    rows = [("MODEL", "VERSION", "STATE", "FORMAT", "WORKERS", "MEMORY", "DIGEST", "ENVIRONMENT", "")]
    for model in models:
        labels: dict[str, list[str]] = {}
        for label, version in model["labels"].items():
            labels.setdefault(version, []).append(label)
        for version in model["versions"]:
            workers = version["workers"]
            ready = sum(worker["state"] == "READY" for worker in workers)
            memory = sum(worker["memory_bytes"] for worker in workers)
            notes = [*_share(model, version["version"]), *labels.get(version["version"], [])]
            notes += [version[key] for key in ("answered_by", "self_test", "reason")]
            rows.append(
                (
                    model["name"],
                    version["version"],
                    version["state"],
                    version["format"],
                    f"{ready}/{len(workers)}" if workers else version["place"],
                    f"{memory / 2**20:.0f} MiB" if memory else "",
                    version["digest"].removeprefix("sha256:")[:12],
                    version["environment"].removeprefix("sha256:")[:12],
                    "; ".join(note for note in notes if note),
                )
            )
        if not model["versions"]:
            gone = "; ".join(f"{version}: {receipt}" for version, receipt in model.get("unloaded", {}).items())
            rows.append((model["name"], "", "NOT SERVED", "", "", "", "", "", model["problem"] or gone))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = [_line(row, widths) for row in rows]
    for model in models:
        watch = model.get("watch", {})
        if "revision" in model:
            lines.append(f"{model['name']}: revision {model['revision']}")
        if model["problem"] and model["versions"]:
            away = watch.get("unreachable_seconds", 0.0)
            lines.append(f"{model['name']}: its source has not answered for {away:.0f} s: {model['problem']}")
        for label, version in model.get("waiting_labels", {}).items():
            lines.append(f"{model['name']}: the label {label} is for version {version}, which is not loaded")
        if watch.get("pending"):
            lines.append(f"{model['name']}: planned: {', '.join(watch['pending'])}; `turnout apply {model['name']}`")
    return "\n".join(lines)


def _share(model: dict[str, Any], version: str) -> list[str]:
    """How much of an endpoint's requests a version has; of a model, whether it is the one that answers."""
    if "traffic" in model:
        return [f"{model['traffic'].get(version, 0.0):g} % of the traffic"]
    return ["default"] if version == model["default"] else []


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()


def _question(verb: str, arguments: argparse.Namespace) -> dict[str, Any]:
    if verb == "load":
        name, _, artifact = arguments.model.partition("=")
        return {"do": verb, "model": name, "artifact": artifact, "version": arguments.version or ""}
    if verb == "unload":
        name, _, version = arguments.model.partition("@")
        return {"do": verb, "model": name, "version": version}
    if verb == "label":
        label, _, version = arguments.label.partition("=")
        return {"do": verb, "model": arguments.model, "label": label, "version": version}
    return {"do": verb, "model": arguments.model}


def _told(verb: str, answer: dict[str, Any]) -> str:
    name = answer["model"]
    if verb == "load":
        return f"{name}: serves {', '.join(answer['versions'])}; {answer['default']} by default"
    if verb == "unload":
        return "\n".join(f"{name}@{version}: {receipt}" for version, receipt in answer["unloaded"].items())
    if verb == "label":
        return (
            f"{name}: {', '.join(f'{label}={version}' for label, version in answer['labels'].items()) or 'no labels'}"
        )
    return f"{name}: {'serves ' + answer['default'] if answer['changed'] else 'nothing was planned'}"
