"""redis-py's client-side cache (CLIENT TRACKING) against the server of a URL; prints what it saw as
JSON."""

import json
import sys
import time

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

# The oldest server that it does this with; the nodes of the tests are older, and can do it.
CacheProxyConnection.MIN_ALLOWED_VERSION = "7.0.0"


def eventually(condition):
    """Whether it comes to hold."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def main():
    url = sys.argv[1]
    other = redis.Redis.from_url(url, decode_responses=True)
    cached = redis.Redis.from_url(
        url, decode_responses=True, protocol=3, cache_config=CacheConfig(max_size=100)
    )
    cache = cached.get_cache()
    out = {}

    other.set("name", "ada")
    out["first"] = [cached.get("name"), cached.get("name"), cache.size]
    # Served from the client's own memory: the server is not asked.
    asked = other.info("commandstats")["cmdstat_get"]["calls"]
    out["again"] = [cached.get("name") for _ in range(10)]
    out["asked"] = other.info("commandstats")["cmdstat_get"]["calls"] - asked

    other.set("name", "lin")
    out["changed"] = eventually(lambda: cached.get("name") == "lin")
    cached.set("name", "own")
    out["own"] = cached.get("name")

    # A counter that becomes hot.
    seen = []
    for number in range(1, 51):
        other.incr("views")
        seen.append(eventually(lambda: cached.get("views") == str(number)))
    out["counter"] = all(seen)
    out["own counter"] = [(cached.incr("views"), cached.get("views")) for _ in range(20)]

    other.hset("user", mapping={"name": "ada", "age": "36"})
    out["hash"] = [cached.hgetall("user"), cached.hget("user", "name")]
    other.hset("user", "name", "lin")
    out["hash changed"] = eventually(lambda: cached.hget("user", "name") == "lin")
    out["many"] = cached.mget("name", "views", "none")
    other.mset({"name": "x", "none": "y"})
    out["many changed"] = eventually(lambda: cached.mget("name", "none") == ["x", "y"])
    other.delete("name")
    out["gone"] = eventually(lambda: cached.get("name") is None)
    other.set("short", "1", px=30)
    cached.get("short")
    out["expired"] = eventually(lambda: cached.get("short") is None)
    cached.get("views")
    other.flushdb()
    out["flushed"] = eventually(lambda: cached.get("views") is None)
    print(json.dumps(out, indent=1, default=str))


main()
