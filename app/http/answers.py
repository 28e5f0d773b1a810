"""JSON answers that are not rows."""

import msgspec
from aiohttp import web


def json_answer(value: object, status: int = 200) -> web.Response:
    """Render a value that no cache may keep; its mappings keep their order."""
    return web.Response(
        status=status,
        body=msgspec.json.encode(value),
        headers={"Content-Type": "application/json", "Cache-Control": "no-cache", "Vary": "Accept"},
    )
