"""A client asks as often as it is allowed on the average, and some more at once: a token bucket for each.

Each is one number (generic cell rate algorithm, ITU-T I.371): the moment at which its bucket is full again. Not the
library `limits`, whose memory starts a thread and walks over all clients while requests come. Counts are of this
process alone.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any, ClassVar, Final

from runtime.errors import ServiceError

MOST_CLIENTS: Final = 50_000
"""Remembered, about 10 MB. Whoever was silent the longest is forgotten, and so has a full bucket."""
_NETWORK_BYTES: Final = 8
"""Of an IPv6 address: a client has all addresses below it (RFC 6177)."""


class TooOftenError(ServiceError):
    """The client asks too often (RFC 6585, section 4)."""

    status: ClassVar[int] = 429
    title: ClassVar[str] = "Too many requests"

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Ask again in {seconds} s.", headers={"Retry-After": str(seconds)})


class Rates:
    """How often each client asks.

    Args:
        per_second: requests of one client on the average
        burst: at once at most, at least 1
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._interval = 1 / per_second
        self._depth = self._interval * burst
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, client: str, now: float) -> int:
        """Whole seconds until a client may ask again; 0 is now, and then it is counted.

        Args:
            client: by a name that nobody else can take
            now: of a clock that never goes back, in seconds
        """
        full_at = max(self._full_at.pop(client, now), now) + self._interval
        early = full_at - now - self._depth
        # What sums of floats lose is not the client's fault.
        refused = early > 1e-6
        self._full_at[client] = full_at - self._interval if refused else full_at
        if len(self._full_at) > MOST_CLIENTS:
            self._full_at.popitem(last=False)
        return math.ceil(early) if refused else 0

    def count(self, client: str) -> None:
        """Count a request of a client that comes now.

        Raises:
            TooOftenError: it comes too early.
        """
        if seconds := self.wait(client, time.monotonic()):
            raise TooOftenError(seconds)


def address_of(scope: Mapping[str, Any]) -> str:
    """Who asks, in an ASGI scope, as far as its address tells."""
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    return address.packed[:_NETWORK_BYTES].hex() if isinstance(address, IPv6Address) else str(host)
