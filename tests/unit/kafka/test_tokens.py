"""Tokens for OAUTHBEARER, from a real endpoint, on a clock of the test's own."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from tablehouse.kafka.tokens import ClientCredentials, TokenEndpoint, TokenUnavailable
from tablehouse.testing import processes
from tests.support.tokens import CLIENT, SECRET, TokenServer


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer(life=100) as started:
        yield started


class Clock:
    """Seconds, as a test sets them."""

    now = 1000.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


def credentials(server: TokenServer, clock: Clock, secret: str = SECRET) -> ClientCredentials:
    return ClientCredentials(TokenEndpoint(server.url, CLIENT, SecretStr(secret)), clock)


async def test_a_token_is_used_until_four_fifths_of_its_life_have_passed(server: TokenServer) -> None:
    clock = Clock()
    provider = credentials(server, clock)
    first = await provider.token()
    clock.now += 79
    assert await provider.token() == first
    assert len(server.asked) == 1
    clock.now += 1
    assert await provider.token() != first
    assert len(server.asked) == 2


async def test_whoever_asks_at_once_gets_one_token(server: TokenServer) -> None:
    provider = credentials(server, Clock())
    tokens = await asyncio.gather(*(provider.token() for _ in range(20)))
    assert len(set(tokens)) == 1
    assert len(server.asked) == 1


async def test_a_token_that_cannot_be_replaced_is_used_until_it_expires(server: TokenServer) -> None:
    clock = Clock()
    provider = credentials(server, clock)
    first = await provider.token()
    server.instead = 503, "away"
    clock.now += 90
    assert await provider.token() == first
    clock.now += 8
    with pytest.raises(TokenUnavailable, match="503 away"):
        await provider.token()
    server.instead = None
    clock.now += 1
    assert await provider.token() != first


async def test_a_failure_stands_for_a_second_so_that_the_endpoint_is_not_overrun(server: TokenServer) -> None:
    clock = Clock()
    provider = credentials(server, clock)
    server.instead = 500, "broken"
    for _ in range(3):
        with pytest.raises(TokenUnavailable) as caught:
            await provider.token()
        assert not caught.value.refused
    assert len(server.asked) == 1
    clock.now += 1
    with pytest.raises(TokenUnavailable):
        await provider.token()
    assert len(server.asked) == 2


async def test_a_refused_client_is_told_from_an_endpoint_that_is_away(server: TokenServer) -> None:
    with pytest.raises(TokenUnavailable, match="returned no token for client workers: 401") as caught:
        await credentials(server, Clock(), "a wrong one").token()
    assert caught.value.refused
    away = TokenEndpoint(f"http://127.0.0.1:{processes.free_port()}/token", CLIENT, SecretStr(SECRET))
    with pytest.raises(TokenUnavailable, match="cannot be reached for a token: ") as caught:
        await ClientCredentials(away).token()
    assert not caught.value.refused


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("<html>", "without an access_token"),
        ("[]", "without an access_token"),
        ('{"access_token": 7}', "without an access_token"),
        ('{"access_token": ""}', "without an access_token"),
        ('{"access_token": "a", "expires_in": "soon"}', "not a number of seconds"),
    ],
)
async def test_an_answer_that_is_no_token_is_refused(server: TokenServer, answer: str, right: str) -> None:
    server.instead = 200, answer
    with pytest.raises(TokenUnavailable, match=right):
        await credentials(server, Clock()).token()


async def test_a_secret_that_the_endpoint_repeats_is_not_shown(server: TokenServer) -> None:
    server.instead = 400, f"what is\n{SECRET}?"
    with pytest.raises(TokenUnavailable) as caught:
        await credentials(server, Clock()).token()
    assert str(caught.value).endswith("400 what is ***?")
    assert SECRET not in f"{caught.value!r} {TokenEndpoint(server.url, CLIENT, SecretStr(SECRET))!r}"


async def test_a_caller_that_gives_up_leaves_the_others_their_token(server: TokenServer) -> None:
    provider = credentials(server, Clock())
    impatient, patient = asyncio.create_task(provider.token()), asyncio.create_task(provider.token())
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient
    assert len(server.asked) == 1
