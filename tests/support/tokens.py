"""A token endpoint for tests, and the unsecured tokens that a broker takes which is told to."""

import base64
import json
import time
from typing import Any, Self

from aiohttp import BasicAuth, web

from tablehouse.testing import processes

CLIENT, SECRET = "workers", "the secret of the workers"


class TokenServer:
    """Gives client CLIENT tokens that live for `life` seconds; it refuses, or answers at all, as it is told."""

    def __init__(self, life: int = 3600) -> None:
        self.life = life
        #: What it answers instead of a token: a status and a text.
        self.instead: tuple[int, str] | None = None
        self.asked: list[dict[str, str]] = []
        port = processes.free_port()
        self.url = f"http://127.0.0.1:{port}/token"
        self._port = port

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/token", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        form = await request.post()
        login = BasicAuth.decode(request.headers["Authorization"])
        self.asked.append({"login": login.login, **{name: str(value) for name, value in form.items()}})
        if self.instead is not None:
            status, text = self.instead
            return web.Response(status=status, text=text)
        if (login.login, login.password) != (CLIENT, SECRET.replace(" ", "%20")):
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response(
            {"access_token": unsecured_token(self.life), "token_type": "Bearer", "expires_in": self.life}
        )


def unsecured_token(life: int) -> str:
    """Return a JWT without a signature (RFC 7519, 6), as Kafka's unsecured validator takes it."""
    now = time.time()
    return f"{_part({'alg': 'none'})}.{_part({'sub': CLIENT, 'iat': now, 'exp': now + life})}."


def _part(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()
