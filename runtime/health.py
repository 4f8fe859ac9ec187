"""Alive and ready are different questions: alive never depends on others, ready names what is missing.

`/health/live` answers while the event loop turns. `/health/ready` asks every check and answers 503 with the
reasons when one fails. What a process can do its work with, but people should see to, makes it "degraded" and leaves it
ready: a restart would not help, and a roll-out should not wait for it.
`/metrics` is Prometheus text. All three live on the management port.
"""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from runtime.answers import GuardedAnswers
from runtime.escapes import masked

CHECK_SECONDS = 2.0
"""A dependency that takes longer than this to say it is there counts as away."""


MOST_REASONS = 20
"""Why a condition is unmet that are news, while it is: a reason may hold a number that is another each time."""


class NotReadyError(Exception):
    """The process cannot do its work now; the message says why."""


Check = Callable[[], Awaitable[None]]
"""Returns when the dependency is there, raises when it is not."""


class Health:
    """What a process needs to be ready, each need under its name."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._mentions: dict[str, Check] = {}

    def require(self, name: str, check: Check) -> None:
        """Make readiness depend on `check`."""
        self._checks[name] = check

    def mention(self, name: str, check: Check) -> None:
        """Tell in readiness when `check` fails, without depending on it."""
        self._mentions[name] = check

    async def reasons(self) -> dict[str, str]:
        """Ask all checks at once.

        Returns:
            What fails, by name, with its reason; empty when ready.
        """
        return await self._ask_all(self._checks)

    async def mentions(self) -> dict[str, str]:
        """The same for what readiness does not depend on."""
        return await self._ask_all(self._mentions)

    async def _ask_all(self, checks: dict[str, Check]) -> dict[str, str]:
        answers = await asyncio.gather(*(self._ask(check) for check in checks.values()))
        return {name: reason for name, reason in zip(checks, answers, strict=True) if reason}

    async def _ask(self, check: Check) -> str | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await check()
        except TimeoutError:
            return f"no answer within {CHECK_SECONDS:g} s"
        except Exception as error:  # noqa: BLE001 - whatever fails is the reason that is reported
            return masked(str(error)) or type(error).__name__
        return None


class Condition:
    """The readiness of a loop that runs by itself: it says when it works and when it does not."""

    def __init__(self, reason: str = "starting") -> None:
        self._reason: str | None = reason
        self._said: set[str] = set()

    def met(self) -> bool:
        """The loop does its work. Returns whether that is news."""
        before, self._reason = self._reason, None
        self._said.clear()
        return before is not None

    def unmet(self, reason: str) -> bool:
        """The loop cannot do its work, for this reason. Returns whether that is news, and so worth a line in the log.

        Each reason is news once until the condition is met: some take turns from try to try.
        """
        self._reason = reason
        if reason in self._said or len(self._said) == MOST_REASONS:
            return False
        self._said.add(reason)
        return True

    @property
    def is_met(self) -> bool:
        """Whether the loop does its work."""
        return self._reason is None

    async def check(self) -> None:
        """Raise NotReadyError with the reason while the condition is unmet."""
        if self._reason is not None:
            raise NotReadyError(self._reason)


def management_app(health: Health) -> Starlette:
    """The application of the management port."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(_: Request) -> Response:
        reasons, mentions = await health.reasons(), await health.mentions()
        if reasons:
            return JSONResponse({"status": "not ready", "reasons": reasons | mentions}, status_code=503)
        return JSONResponse({"status": "degraded", "reasons": mentions} if mentions else {"status": "ready"})

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/metrics", metrics),
        ],
        middleware=[Middleware(GuardedAnswers)],
    )
