"""The protos with their comments, as data: for what must not drift from them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor, descriptor_pb2, descriptor_pool
from grpc_tools import protoc

from vantage.api.access.v1 import access_pb2

ROOT = Path(__file__).resolve().parent.parent.parent
PROTOS = ROOT / "protos"
_SERVICE, _METHOD = 6, 2
"""Field numbers in FileDescriptorProto and ServiceDescriptorProto, of which the paths of comments are made."""


@dataclass(frozen=True)
class Rpc:
    """A method with what its declaration says.

    Attributes:
        descriptor: of the method.
        comment: without line ends.
    """

    descriptor: descriptor.MethodDescriptor
    comment: str

    @property
    def name(self) -> str:
        """``package.Service.Method``."""
        return str(self.descriptor.full_name)

    @property
    def service(self) -> str:
        """``package.Service``."""
        return str(self.descriptor.containing_service.full_name)

    @property
    def path(self) -> str:
        """``/package.Service/Method``, as calls name it."""
        return f"/{self.service}/{self.descriptor.name}"

    @property
    def access(self) -> access_pb2.Access | None:
        """The access option."""
        options = self.descriptor.GetOptions()
        return options.Extensions[access_pb2.access] if options.HasExtension(access_pb2.access) else None

    @property
    def who(self) -> str:
        """What the comment says of who may call it."""
        return self._part("Who")

    @property
    def errors(self) -> str:
        """What the comment says of errors."""
        return self._part("Errors")

    def _part(self, title: str) -> str:
        found = re.search(rf"\b{title}: (.*?)(?= (?:Who|Errors): |$)", self.comment)
        return found[1] if found else ""


@cache
def _compiled() -> tuple[descriptor_pool.DescriptorPool, descriptor_pb2.FileDescriptorSet]:
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "protos.binpb"
        status = protoc.main(
            [
                "protoc",
                f"-I{PROTOS}",
                f"-I{files('grpc_tools') / '_proto'}",
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={out}",
                *sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")),
            ]
        )
        if status:
            raise RuntimeError("protoc failed: see the messages above")
        compiled = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in compiled.file:
        pool.Add(file)
    return pool, compiled


def files_of_contract() -> Iterator[descriptor.FileDescriptor]:
    """Every file of ours."""
    pool, compiled = _compiled()
    for file in compiled.file:
        if file.package.startswith("vantage."):
            yield pool.FindFileByName(file.name)


def rpcs() -> list[Rpc]:
    """Every method of ours, in the order of the files."""
    pool, compiled = _compiled()
    found = []
    for file in compiled.file:
        if not file.package.startswith("vantage."):
            continue
        comments = {
            tuple(each.path): " ".join(each.leading_comments.split()) for each in file.source_code_info.location
        }
        services = pool.FindFileByName(file.name).services_by_name
        for number, service in enumerate(file.service):
            for position, method in enumerate(service.method):
                comment = comments.get((_SERVICE, number, _METHOD, position), "")
                found.append(Rpc(services[service.name].methods_by_name[method.name], comment))
    return found


def messages() -> Iterator[descriptor.Descriptor]:
    """Every message of ours, nested ones as well."""
    waiting = [message for file in files_of_contract() for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        waiting += message.nested_types
        yield message


def enums() -> Iterator[descriptor.EnumDescriptor]:
    """Every enum of ours."""
    for file in files_of_contract():
        yield from file.enum_types_by_name.values()
    for message in messages():
        yield from message.enum_types
