"""Answers with gzip (RFC 9110, section 8.4), for clients that say that they take it."""

import zlib

#: Bytes of the smallest body that is compressed: a smaller one takes about as many packets either way.
MIN_BYTES = 1024

#: The fastest one. JSON gets to about a sixth with it, and to a seventh with one that takes three times as long.
_LEVEL = 1

#: What zlib is told for the format of gzip, with its largest window.
_GZIP = 16 + zlib.MAX_WBITS

#: The end of the entity tag of a body in gzip, inside the quotes.
_TAG_END = '-gzip"'


def takes_gzip(accept_encoding: str) -> bool:
    """Return whether a client takes gzip, and likes the body as it is no better."""
    weights: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        coding, _, parameter = item.partition(";")
        name, _, weight = parameter.partition("=")
        weights[coding.strip()] = _weight(weight) if name.strip() == "q" else 1.0
    liked = max(weights.get("gzip", 0.0), weights.get("x-gzip", 0.0))
    if "gzip" not in weights and "x-gzip" not in weights:
        liked = weights.get("*", 0.0)
    return liked > 0 and liked >= weights.get("identity", 0.0)


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


class Gzip:
    """Compresses a body."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)

    def feed(self, piece: bytes) -> bytes:
        """Return what is complete of the compressed body."""
        return self._compressor.compress(piece)

    def end(self) -> bytes:
        """Return the rest of it."""
        return self._compressor.flush()


def gzipped(body: bytes) -> bytes | None:
    """Return a body compressed, None when that makes it no smaller."""
    gzip = Gzip()
    made = gzip.feed(body) + gzip.end()
    return made if len(made) < len(body) else None


def gzip_tag(tag: str) -> str:
    """Return the entity tag of the same body in gzip; it differs, since the bytes do."""
    return tag[:-1] + _TAG_END


def identity_tag(tag: str) -> str:
    """Return the entity tag of the same body as it is."""
    return tag.removesuffix(_TAG_END) + '"' if tag.endswith(_TAG_END) else tag
