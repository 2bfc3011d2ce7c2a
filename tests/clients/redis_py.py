"""A broad run of redis-py (4 or newer) against the server of a URL; prints what it saw as JSON."""

import json
import sys
import threading

import redis


def seen(value):
    """A reply as JSON, the same for equal replies; bytes stay distinguishable from text."""
    if isinstance(value, bytes):
        return "b:" + value.hex()
    if isinstance(value, dict):
        return {str(seen(key)): seen(item) for key, item in sorted(value.items())}
    if isinstance(value, (set, frozenset)):
        return sorted(seen(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [seen(item) for item in value]
    return value


def error_of(call):
    """The type and text of the error that a call raises."""
    try:
        return ["no error", seen(call())]
    except redis.RedisError as error:
        return [type(error).__name__, str(error)]


def concurrent_increments(url, options):
    """Every number from 1 on once, from 8 threads over one pool."""
    client = redis.Redis.from_url(url, **options)
    numbers = []

    def count():
        for _ in range(100):
            numbers.append(client.incr("concurrent"))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(numbers) == list(range(1, 801))


def run(url, options):
    client = redis.Redis.from_url(url, **options)
    client.flushall()
    out = {"client": redis.__version__}
    out["ping"] = client.ping()
    out["echo"] = seen(client.echo("hello"))
    out["set"] = [client.set("k", "v"), seen(client.get("k")), client.get("nothing")]
    out["set options"] = [client.set("k", "w", nx=True), seen(client.set("k", "x", get=True))]
    binary = bytes(range(256))
    undecoded = redis.Redis.from_url(url, **{**options, "decode_responses": False})
    out["binary"] = [undecoded.set(binary, binary), undecoded.get(binary) == binary]
    out["counters"] = [client.incr("n"), client.incr("n", 5), client.decr("n", 2), client.decr("n")]
    out["float"] = client.incrbyfloat("f", 1.5)
    out["concurrent"] = concurrent_increments(url, options)
    out["mset"] = client.mset({f"m{n}": n for n in range(20)})
    out["mget"] = seen(client.mget([f"m{n}" for n in range(20)] + ["nothing"]))
    out["delete"] = [client.delete("m0", "m1", "m1", "nothing"), client.unlink("m2"), client.exists("m3", "m3")]
    with client.pipeline(transaction=False) as pipe:
        for n in range(50):
            pipe.incr("piped").get("piped").set(f"p{n}", n)
        out["pipeline"] = seen(pipe.execute())
    script = client.register_script("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}")
    out["script"] = [seen(script(keys=["scripted"], args=["a"])) for _ in range(3)]
    out["eval"] = seen(client.eval("return redis.call('GET', KEYS[1])", 1, "scripted"))
    out["hash"] = [
        client.hset("h", mapping={"a": 1, "b": 2}),
        seen(client.hgetall("h")),
        client.hincrby("h", "a", 3),
        seen(client.hmget("h", ["a", "z"])),
    ]
    out["list"] = [client.rpush("l", 1, 2, 3), seen(client.lrange("l", 0, -1)), seen(client.lpop("l", 2))]
    out["set type"] = [client.sadd("s", "a", "b"), seen(client.smembers("s")), seen(client.sismember("s", "a"))]
    out["zset"] = [
        client.zadd("z", {"a": 1.5, "b": 2}),
        seen(client.zrange("z", 0, -1, withscores=True)),
        client.zscore("z", "a"),
        seen(client.zpopmin("z")),
    ]
    out["stream"] = [seen(client.xadd("x", {"f": "v"}, id="1-1")), seen(client.xrange("x"))]
    out["expire"] = [
        client.expire("n", 1000),
        990 < client.ttl("n") <= 1000,
        client.incr("n"),
        990 < client.ttl("n") <= 1000,
        client.persist("n"),
        client.ttl("n"),
        client.ttl("nothing"),
    ]
    for n in range(200):
        client.set(f"scan:{n}", n)
    out["scan"] = len(list(client.scan_iter(match="scan:*", count=10)))
    out["dbsize"] = client.dbsize()
    out["type"] = seen([client.type(key) for key in ["k", "h", "l", "s", "z", "nothing"]])
    out["errors"] = [
        error_of(lambda: client.lpush("k", 1)),
        error_of(lambda: client.incr("k")),
        error_of(lambda: client.evalsha("f" * 40, 0)),
        error_of(lambda: client.execute_command("NOSUCH", "a")),
        error_of(lambda: client.execute_command("GET")),
        error_of(lambda: client.eval("return redis.error_reply('OWN error')", 1, "k")),
    ]
    client.set("n", 2**63 - 1)
    out["overflow"] = error_of(lambda: client.incr("n"))
    info = client.execute_command("CLIENT", "INFO")
    info = info if isinstance(info, dict) else dict(
        field.split("=", 1) for field in (info.decode() if isinstance(info, bytes) else info).split()
    )
    out["database"] = str(info["db"])
    out["info"] = [client.info()["loading"], client.info("server").get("redis_mode", "standalone")]
    undecoded.close()
    client.close()
    return out


def main():
    url = sys.argv[1]
    runs = {"default": {}, "decoded": {"decode_responses": True, "client_name": "suite"}}
    # Version 4 speaks RESP2 only.
    if int(redis.__version__.split(".")[0]) >= 5:
        runs |= {"RESP2": {"protocol": 2}, "RESP3": {"protocol": 3}}
    out = {name: run(url, options) for name, options in runs.items()}
    out["database"] = run(f"{url}/3", {})
    print(json.dumps(out, sort_keys=True))


main()
