"""A policy of a Kafka cluster, as hosted ones have it, without a Java compiler: the class is put together here.

See org.apache.kafka.server.policy.CreateTopicPolicy, and chapter 4 of the Java virtual machine specification. Class
files of version 49 need no stack maps.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

CLASS_NAME = "TopicPolicy"

_POLICY = "org/apache/kafka/server/policy/CreateTopicPolicy"
_REQUEST = f"{_POLICY}$RequestMetadata"
_VIOLATION = "org/apache/kafka/common/errors/PolicyViolationException"
_MAP = "java/util/Map"

_UTF8, _INTEGER, _CLASS, _STRING, _METHOD, _INTERFACE_METHOD, _NAME_AND_TYPE = 1, 3, 7, 8, 10, 11, 12
_ALOAD_0, _ALOAD_1, _ALOAD_2, _ALOAD_3, _ASTORE_2, _ASTORE_3, _DUP, _RETURN = map(
    bytes, ([0x2A], [0x2B], [0x2C], [0x2D], [0x4D], [0x4E], [0x59], [0xB1])
)


class _Constants:
    """The constant pool; methods return the index of a constant."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    def _put(self, entry: bytes) -> int:
        if entry not in self.entries:
            self.entries.append(entry)
        return self.entries.index(entry) + 1

    def text(self, text: str) -> int:
        return self._put(struct.pack(">BH", _UTF8, len(text)) + text.encode())

    def number(self, number: int) -> int:
        return self._put(struct.pack(">Bi", _INTEGER, number))

    def of_class(self, name: str) -> int:
        return self._put(struct.pack(">BH", _CLASS, self.text(name)))

    def string(self, text: str) -> int:
        return self._put(struct.pack(">BH", _STRING, self.text(text)))

    def method(self, owner: str, name: str, kind: str, tag: int = _METHOD) -> int:
        name_and_type = self._put(struct.pack(">BHH", _NAME_AND_TYPE, self.text(name), self.text(kind)))
        return self._put(struct.pack(">BHH", tag, self.of_class(owner), name_and_type))


def write_policy(folder: Path, *, forbidden: Sequence[str], most_bytes: int) -> None:
    """Write a policy that lets no topic set the forbidden settings, nor max.message.bytes to more than that."""
    pool = _Constants()

    def indexed(code: int, constant: int, more: bytes = b"") -> bytes:
        return struct.pack(">BH", code, constant) + more

    def load(constant: int) -> bytes:
        return indexed(0x13, constant)  # ldc_w

    def of_map(method: str, kind: str) -> bytes:
        return indexed(0xB9, pool.method(_MAP, method, kind, _INTERFACE_METHOD), b"\x02\x00")  # invokeinterface

    def violation(message: str) -> bytes:
        made = indexed(0xBB, pool.of_class(_VIOLATION)) + _DUP + load(pool.string(message))  # new
        return made + indexed(0xB7, pool.method(_VIOLATION, "<init>", "(Ljava/lang/String;)V")) + b"\xbf"  # athrow

    def unless(jump: int, then: bytes) -> bytes:
        return struct.pack(">Bh", jump, 3 + len(then)) + then

    validate = _ALOAD_1 + indexed(0xB6, pool.method(_REQUEST, "configs", "()Ljava/util/Map;")) + _ASTORE_2
    for setting in forbidden:
        validate += _ALOAD_2 + load(pool.string(setting)) + of_map("containsKey", "(Ljava/lang/Object;)Z")
        validate += unless(0x99, violation(f"{setting} may not be set"))  # ifeq
    validate += _ALOAD_2 + load(pool.string("max.message.bytes"))
    validate += of_map("get", "(Ljava/lang/Object;)Ljava/lang/Object;")
    validate += indexed(0xC0, pool.of_class("java/lang/String")) + _ASTORE_3  # checkcast
    compared = _ALOAD_3 + indexed(0xB8, pool.method("java/lang/Integer", "parseInt", "(Ljava/lang/String;)I"))
    compared += load(pool.number(most_bytes))
    compared += unless(0xA4, violation(f"max.message.bytes may be {most_bytes} at most"))  # if_icmple
    validate += _ALOAD_3 + unless(0xC6, compared) + _RETURN  # ifnull

    methods = {
        ("<init>", "()V"): _ALOAD_0 + indexed(0xB7, pool.method("java/lang/Object", "<init>", "()V")) + _RETURN,
        ("configure", "(Ljava/util/Map;)V"): _RETURN,
        ("close", "()V"): _RETURN,
        ("validate", f"(L{_REQUEST};)V"): validate,
    }
    written = b"".join(_method(pool, name, kind, code) for (name, kind), code in methods.items())
    heads = (pool.of_class(CLASS_NAME), pool.of_class("java/lang/Object"), 1, pool.of_class(_POLICY))
    content = struct.pack(">IHHH", 0xCAFEBABE, 0, 49, len(pool.entries) + 1) + b"".join(pool.entries)
    content += struct.pack(">H4H", 0x21, *heads) + struct.pack(">HH", 0, len(methods)) + written + struct.pack(">H", 0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{CLASS_NAME}.class").write_bytes(content)


def _method(pool: _Constants, name: str, kind: str, code: bytes) -> bytes:
    attribute = struct.pack(">HHI", 8, 8, len(code)) + code + struct.pack(">HH", 0, 0)
    head = struct.pack(">HHHH", 1, pool.text(name), pool.text(kind), 1)
    return head + struct.pack(">HI", pool.text("Code"), len(attribute)) + attribute
