"""What a process can live with is told in its readiness and does not end it."""

import httpx

from runtime.health import Health, NotReadyError, management_app


async def broken() -> None:
    raise NotReadyError("broken")


async def dubious() -> None:
    raise NotReadyError("dubious")


async def well() -> None:
    return


async def ready(health: Health) -> tuple[int, dict[str, object]]:
    transport = httpx.ASGITransport(management_app(health))
    async with httpx.AsyncClient(transport=transport, base_url="http://process") as client:
        answer = await client.get("/health/ready")
    return answer.status_code, answer.json()


async def test_what_is_only_mentioned_leaves_a_process_ready_and_is_told() -> None:
    health = Health()
    health.require("database", well)
    health.mention("cache", well)
    assert await ready(health) == (200, {"status": "ready"})
    health.mention("cache", dubious)
    assert await ready(health) == (200, {"status": "degraded", "reasons": {"cache": "dubious"}})


async def test_what_is_required_ends_readiness_and_does_not_hide_the_rest() -> None:
    health = Health()
    health.require("database", broken)
    health.mention("cache", dubious)
    assert await ready(health) == (503, {"status": "not ready", "reasons": {"database": "broken", "cache": "dubious"}})
