"""Celery, as broker and as store of results, against the server of a URL; prints what it saw as
JSON. Its keys have no hash tags.

    python celery_tasks.py URL
"""

import json
import logging
import os
import sys

from celery import Celery, chain, chord, group
from celery.contrib.testing.worker import start_worker
from redis import Redis

app = Celery("tasks")
app.conf.update(worker_hijack_root_logger=False, task_acks_late=True)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=1)
def second_time(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0)
    return self.request.retries


def main(url):
    logging.disable(logging.CRITICAL)
    Redis.from_url(url).flushall()
    app.conf.update(broker_url=url, result_backend=url)
    seen = {}
    queues = ["celery", "mail"]
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False, queues=queues):
        seen["one"] = add.delay(2, 3).get(timeout=LIMIT_S)
        seen["group"] = group(add.s(i, i) for i in range(10))().get(timeout=LIMIT_S)
        seen["chord"] = chord((add.s(i, i) for i in range(5)), total.s())().get(timeout=LIMIT_S)
        seen["chain"] = chain(add.s(1, 2), add.s(3))().get(timeout=LIMIT_S)
        seen["retried"] = second_time.delay().get(timeout=LIMIT_S)
        seen["other queue"] = add.apply_async((1, 1), queue="mail").get(timeout=LIMIT_S)
        seen["priority"] = add.apply_async((1, 2), priority=3).get(timeout=LIMIT_S)
        seen["later"] = add.apply_async((1, 3), countdown=0.2).get(timeout=LIMIT_S)
        seen["workers"] = len(app.control.ping(timeout=1))
    print(json.dumps(seen, indent=1), flush=True)
    # The worker's threads have been told to end; those that wait for a message need not.
    os._exit(0)


# More than any of it takes.
LIMIT_S = 20

if __name__ == "__main__":
    main(sys.argv[1])
