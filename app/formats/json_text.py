"""Strict JSON (RFC 8259), with every way of being wrong as one error."""

from typing import TypeVar

import msgspec

from app.formats.errors import DecodeError

_Decoded = TypeVar("_Decoded")

_decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder()


def decode_json(text: bytes) -> object:
    """Return the value of a JSON text; integers keep every digit, of members with one name the last counts.

    Raises DecodeError for anything that is not JSON in UTF-8, and for three things that are: a number beyond
    a double's range, an integer of more than 4,300 digits, and nesting beyond the interpreter's recursion
    limit.
    """
    return decode_with(_decoder, text)


def decode_with(decoder: msgspec.json.Decoder[_Decoded], text: bytes) -> _Decoded:
    """Return what a decoder makes of a JSON text; raises DecodeError.

    What the decoder takes as `msgspec.Raw`, or does not know, is skipped over: bad UTF-8 and numbers beyond a double's
    range are not seen in there.
    """
    try:
        return decoder.decode(text)
    except UnicodeDecodeError as error:
        raise DecodeError(f"a JSON string is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise DecodeError("the JSON is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise DecodeError(f"its JSON is not as it should be: {error}") from error
    except msgspec.DecodeError as error:
        raise DecodeError(f"it is not JSON: {error}") from error
