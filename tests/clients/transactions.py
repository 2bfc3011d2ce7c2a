"""redis-py's transactions and waits against the server of a URL, in both protocols; prints what it
saw as JSON. All keys share a node."""

import json
import sys
import threading

import redis


def counted(url, options):
    """What eight threads come to that each raise a number twenty times with WATCH."""
    client = redis.Redis.from_url(url, **options)

    def raise_it(pipe):
        value = int(pipe.get("{t}watched") or 0)
        pipe.multi()
        pipe.set("{t}watched", value + 1)

    def work():
        for _ in range(20):
            client.transaction(raise_it, "{t}watched")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return client.get("{t}watched")


def worked(url, options):
    """The jobs that a worker takes from a queue, in their order."""
    client = redis.Redis.from_url(url, **options)
    jobs = []

    def work():
        worker = redis.Redis.from_url(url, **options)
        while (job := worker.brpop(["{q}high", "{q}low"], timeout=10)) and job[1] != "stop":
            jobs.append(job[1])

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(50):
        client.lpush("{q}low", number)
    client.lpush("{q}low", "stop")
    thread.join()
    return jobs


def error_of(call):
    try:
        return ["no error", call()]
    except redis.RedisError as error:
        return [type(error).__name__, str(error)]


def run(url, options):
    client = redis.Redis.from_url(url, decode_responses=True, **options)
    client.flushall()
    out = {}
    with client.pipeline() as pipe:
        for number in range(20):
            pipe.incr("{t}n").expire("{t}n", 1000).get("{t}n").hset("{t}h", "f", number)
        out["pipeline"] = pipe.hgetall("{t}h").zadd("{t}z", {"a": 1.5}).zscore("{t}z", "a").execute()
    with client.pipeline() as pipe:
        pipe.set("{t}s", "text").incr("{t}s").get("{t}s")
        out["errors"] = [str(reply) for reply in pipe.execute(raise_on_error=False)]
    with client.pipeline() as pipe:
        pipe.set("{t}s", "other").execute_command("SET", "{t}s")
        out["refused"] = error_of(pipe.execute)
    out["kept"] = client.get("{t}s")
    with client.pipeline() as pipe:
        pipe.watch("{t}n")
        client.incr("{t}n")
        pipe.multi()
        pipe.set("{t}n", 0)
        out["watched"] = error_of(pipe.execute)
    out["counted"] = counted(url, {**options, "decode_responses": True})
    out["worked"] = worked(url, {**options, "decode_responses": True})
    out["timeout"] = [client.blpop("{q}none", timeout=0.05), client.bzpopmin("{q}none", timeout=0.05)]
    client.zadd("{q}z", {"a": 1, "b": 2})
    out["bzpopmin"] = client.bzpopmin("{q}z")
    client.xadd("{q}x", {"f": "v"}, id="1-1")
    out["xread"] = client.xread({"{q}x": "0"}, block=1000)
    return out


def main():
    url = sys.argv[1]
    runs = {"RESP2": {"protocol": 2}, "RESP3": {"protocol": 3}}
    print(json.dumps({name: run(url, options) for name, options in runs.items()}, sort_keys=True))


main()
