"""A visit counter over HTTP, kept in Redis.

    REDIS_URL=redis://localhost:6379 uvicorn app:app

`REDIS_URL` is all that it knows of its server. A visit is one INCR. A count that was read is good
for `CACHE_SECONDS` (5), or until this process records a visit of the same page.
"""

import os
import time
from contextlib import asynccontextmanager

import redis.asyncio as redis
from fastapi import FastAPI, Request

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379")
CACHE_SECONDS = float(os.environ.get("CACHE_SECONDS", "5"))
# Pages are named by whoever asks: the cache must not grow with their fantasy.
CACHE_PAGES = 10_000


class Visits:
    """Counts of visits by page."""

    def __init__(self, url, cache_seconds):
        self._redis = redis.Redis.from_url(url)
        arguments = self._redis.connection_pool.connection_kwargs
        self._server = f"redis_{arguments.get('port', 6379)}"
        self._cache_seconds = cache_seconds
        # Page -> (count, when it stops being good), oldest first.
        self._cache = {}

    async def record(self, page):
        await self._redis.incr(key_of(page))
        # After the reply: what was read in between does not have this visit.
        self._cache.pop(page, None)

    async def count(self, page):
        """The number of visits, and where it was taken from."""
        count, good_until = self._cache.get(page, (0, 0))
        if time.monotonic() < good_until:
            return count, "in_memory"
        value = await self._redis.get(key_of(page))
        count = int(value or 0)
        self._cache.pop(page, None)
        if len(self._cache) >= CACHE_PAGES:
            self._cache.pop(next(iter(self._cache)))
        self._cache[page] = (count, time.monotonic() + self._cache_seconds)
        return count, self._server

    async def close(self):
        await self._redis.aclose()


def key_of(page):
    return f"visits:{page}"


@asynccontextmanager
async def lifespan(app):
    app.state.visits = Visits(REDIS_URL, CACHE_SECONDS)
    yield
    await app.state.visits.close()


app = FastAPI(title="Visit counter", lifespan=lifespan)


@app.post("/visit/{page_id}")
async def visit(page_id: str, request: Request):
    await request.app.state.visits.record(page_id)
    return {"status": "success", "message": f"Visit recorded for page {page_id}"}


@app.get("/visits/{page_id}")
async def visits(page_id: str, request: Request):
    count, served_via = await request.app.state.visits.count(page_id)
    return {"count": count, "served_via": served_via}
