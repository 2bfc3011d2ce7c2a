"""redis-py's pub/sub against the server of a URL, in both protocols; prints what it saw as JSON."""

import json
import sys
import threading
import time

import redis


def received(pubsub, count):
    """The next messages, confirmations included; `None` where one does not come in time."""
    seen = []
    for _ in range(count):
        deadline = time.monotonic() + 10
        message = None
        while message is None and time.monotonic() < deadline:
            message = pubsub.get_message(timeout=1)
        seen.append(message)
    return seen


def run(url, options):
    client = redis.Redis.from_url(url, decode_responses=True, **options)
    out = {}
    pubsub = client.pubsub()
    pubsub.subscribe("news", "sport")
    out["subscribed"] = sorted(str(message) for message in received(pubsub, 2))
    out["published"] = [client.publish("news", "one"), client.publish("sport", "two")]
    out["messages"] = received(pubsub, 2)
    pubsub.psubscribe("ne*")
    out["pattern"] = received(pubsub, 1)
    out["both"] = [client.publish("news", "three"), received(pubsub, 2)]
    out["numsub"] = client.pubsub_numsub("news", "sport", "none")
    out["channels"] = sorted(client.pubsub_channels("*"))
    out["numpat"] = client.pubsub_numpat()
    pubsub.ping("hello")
    out["ping"] = received(pubsub, 1)
    pubsub.unsubscribe("news")
    pubsub.punsubscribe()
    out["unsubscribed"] = received(pubsub, 2)
    out["later"] = [client.publish("news", "four"), client.publish("sport", "five")]
    out["rest"] = received(pubsub, 1)
    pubsub.close()

    got = []
    done = threading.Event()

    def handler(message):
        got.append(message["data"])
        if len(got) == 100:
            done.set()

    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(**{"many": handler})
    thread = listener.run_in_thread(sleep_time=0.01)
    while client.pubsub_numsub("many") != [("many", 1)]:
        time.sleep(0.01)
    pipe = client.pipeline(transaction=False)
    for number in range(100):
        pipe.publish("many", number)
    out["pipeline"] = sum(pipe.execute())
    done.wait(10)
    thread.stop()
    thread.join()
    out["threaded"] = got == [str(number) for number in range(100)]
    return out


def main():
    url = sys.argv[1]
    result = {"resp2": run(url, {})}
    if int(redis.__version__.split(".")[0]) >= 5:
        result["resp3"] = run(url, {"protocol": 3})
    print(json.dumps(result, indent=1, default=str))


main()
