"""Classes of Protobuf's messages, compiled as a producer does it at build time."""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc


def message_class(folder: Path, text: str, name: str) -> Any:
    """Compile a schema in a folder and return the class of one of its messages, by its full name."""
    (folder / "written.proto").write_text(text, "utf-8")
    out = folder / "written.desc"
    included = Path(protoc.__file__).parent / "_proto"
    options = [f"-I{folder}", f"-I{included}", "--include_imports", f"--descriptor_set_out={out}", "written.proto"]
    assert protoc.main(["protoc", *options]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
