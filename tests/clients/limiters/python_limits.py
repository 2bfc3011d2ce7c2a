"""limits (as under flask-limiter and slowapi) against the server of a URL; prints what it saw as
JSON."""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import redis
from limits import parse
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter


def seen_left(reset_time, window):
    """How much of the window is left differs by a little from run to run."""
    left = reset_time - time.time()
    return "window" if window - 10 < left <= window + 1 else round(left)


def main():
    url = sys.argv[1]
    client = redis.Redis.from_url(url, decode_responses=True)
    client.flushall()
    storage = RedisStorage(url)
    limiter = FixedWindowRateLimiter(storage)
    limit = parse("5/minute")
    out = {}

    def stats(user):
        found = limiter.get_window_stats(limit, user)
        return [seen_left(found.reset_time, 60), found.remaining]

    out["test"] = [limiter.test(limit, "a"), limiter.test(limit, "a", cost=6)]
    out["hits"] = [limiter.hit(limit, "a") for _ in range(7)]
    out["stats"] = stats("a")
    out["cost"] = [limiter.hit(limit, "b", cost=cost) for cost in (2, 2, 2, 1)] + [stats("b")]
    with ThreadPoolExecutor(16) as pool:
        hits = list(pool.map(lambda n: limiter.hit(limit, f"user-{n % 4}"), range(80)))
    out["burst"] = [sum(hits[user::4]) for user in range(4)]
    with ThreadPoolExecutor(16) as pool:
        values = list(pool.map(lambda n: storage.incr("counter", 60), range(100)))
    out["values"] = sorted(values) == list(range(1, 101))
    limiter.clear(limit, "a")
    out["cleared"] = [limiter.hit(limit, "a"), stats("a")]
    # A counter without a deadline keeps none, but for the hit that brings it to the amount.
    client.set("LIMITS:forever", 3)
    client.set("LIMITS:negative", -4)
    out["forever"] = [storage.incr("forever", 60), client.ttl("LIMITS:forever")]
    out["negative"] = [storage.incr("negative", 60) for _ in range(7)]
    out["negative ttl"] = 50 < client.ttl("LIMITS:negative") <= 60
    out["mixed"] = [client.incrby("LIMITS:counter", 7), storage.incr("counter", 60), client.get("LIMITS:counter")]
    client.set("LIMITS:text", "x")
    try:
        out["error"] = storage.incr("text", 60)
    except redis.ResponseError as error:
        out["error"] = str(error).split(" script:")[0]
    client.script_flush()
    out["flushed"] = storage.incr("counter", 60)
    print(json.dumps(out))
    client.close()
    storage.get_connection().close()


main()
