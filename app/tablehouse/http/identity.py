"""How this worker identifies itself to its peers."""

from tablehouse.model import HostInfo


class Identity:
    """This worker as its peers know it.

    advertised_url is the URL at which they reach the internal listener; None stands for the address it is bound to.
    """

    def __init__(self, worker_id: str, incarnation: int, advertised_url: str | None) -> None:
        self._worker_id = worker_id
        self._incarnation = incarnation
        self._url = advertised_url

    def bound_to(self, url: str) -> None:
        """Note the address of the internal listener."""
        self._url = self._url or url

    @property
    def host(self) -> HostInfo:
        """The worker with its URL; raises RuntimeError while neither is known."""
        if self._url is None:
            raise RuntimeError("the HTTP server has not been started")
        return HostInfo(self._worker_id, self._incarnation, self._url)
