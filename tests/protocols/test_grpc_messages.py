"""The protobuf messages: compiled fresh, private to us, and of the published field numbers."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2

from turnout.core.errors import InvalidInput
from turnout.protocols.grpc_messages import DESCRIPTORS, POOL, SERVICES, message_class, parse

ROOT = Path(__file__).resolve().parents[2]


def test_the_compiled_descriptors_are_those_of_the_proto_files() -> None:
    spec = spec_from_file_location("compile_protos", ROOT / "tools" / "compile_protos.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    shipped = (ROOT / "src" / "turnout" / "protocols" / DESCRIPTORS).read_bytes()
    assert module.compile_protos() == shipped, "run: python tools/compile_protos.py"


def test_the_services() -> None:
    assert SERVICES == (
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    )


MESSAGES = sorted(POOL.FindFileByName("turnout/protocols/open_inference.proto").message_types_by_name)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_field_that_tritonclient_knows_too_has_the_same_number_and_type(name: str) -> None:
    ours = POOL.FindMessageTypeByName(f"inference.{name}")
    theirs = service_pb2.DESCRIPTOR.message_types_by_name[name]

    def compare(left: object, right: object) -> int:
        shared = 0
        for field in left.fields:  # type: ignore[attr-defined]
            other = right.fields_by_name.get(field.name)  # type: ignore[attr-defined]
            if other is not None:
                shared += 1
                assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
        for nested in left.nested_types:  # type: ignore[attr-defined]
            shared += compare(nested, right.nested_types_by_name[nested.name])  # type: ignore[attr-defined]
        for theirs_only in right.fields:  # type: ignore[attr-defined]
            assert theirs_only.name in left.fields_by_name, theirs_only.name  # type: ignore[attr-defined]
        return shared

    shared = compare(ours, theirs)
    assert shared == sum(1 for _ in _all_fields(theirs))


def _all_fields(message: object) -> list[object]:
    found = list(message.fields)  # type: ignore[attr-defined]
    for nested in message.nested_types:  # type: ignore[attr-defined]
        found += _all_fields(nested)
    return found


@pytest.mark.parametrize("order", [("turnout", "tritonclient"), ("tritonclient", "turnout")])
def test_a_client_library_of_the_same_package_loads_in_the_same_process(order: tuple[str, str]) -> None:
    lines = {
        "turnout": "from turnout.protocols.v2_grpc import GRPC_METHODS",
        "tritonclient": "from tritonclient.grpc import service_pb2; import grpc_health.v1.health_pb2; "
        "import grpc_reflection.v1alpha.reflection_pb2",
    }
    program = "\n".join(lines[name] for name in order) + (
        "\nfrom turnout.protocols.grpc_messages import message_class"
        "\nours = message_class('inference.ModelReadyRequest')(name='m', version='2')"
        "\ntheirs = service_pb2.ModelReadyRequest.FromString(ours.SerializeToString())"
        "\nassert (theirs.name, theirs.version) == ('m', '2')"
        "\nassert type(theirs) is not type(ours)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_of_ours_is_in_the_default_pool() -> None:
    program = (
        "import turnout.protocols.v2_grpc\n"
        "from google.protobuf import descriptor_pool\n"
        "try:\n"
        "    descriptor_pool.Default().FindMessageTypeByName('inference.ModelInferRequest')\n"
        "except KeyError:\n"
        "    print('private')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "private\n"


@pytest.mark.parametrize("broken", [b"\x0a", b"\x0a\x02\xff\xfe", b"\xff\xff", b"\x0a\x05ab", b"\x02\x00"])
def test_bytes_that_are_no_message_are_a_callers_mistake(broken: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"a serialized inference\.ModelReadyRequest"):
        parse(message_class("inference.ModelReadyRequest"), broken)
