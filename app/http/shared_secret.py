"""The secret that workers show each other, if they were given one."""

import hmac
from collections.abc import Mapping, Sequence

from app.errors import Unauthenticated

SECRET = "Tablehouse-Internal-Secret"  # noqa: S105 - the header's name


class SharedSecret:
    """Sends the first of some secrets and takes all of them; without any it sends nothing and takes everything."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [secret.encode() for secret in secrets]
        self.headers: Mapping[str, str] = {SECRET: secrets[0]} if secrets else {}

    def check(self, headers: Mapping[str, str]) -> None:
        """Raise Unauthenticated unless a request's headers have one of the secrets."""
        if not self._secrets:
            return
        given = headers.get(SECRET)
        if given is None:
            raise Unauthenticated(f"the internal listener is for workers with its secret; there is no {SECRET} header")
        shown, known = given.encode("utf-8", "surrogateescape"), False
        # All of them, or the time it takes would say which one is nearly right.
        for secret in self._secrets:
            known |= hmac.compare_digest(shown, secret)
        if not known:
            raise Unauthenticated(
                f"the secret in {SECRET} is none of this worker's: internal_secrets of both must have one in common"
            )
