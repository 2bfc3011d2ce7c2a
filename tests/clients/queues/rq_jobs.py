"""RQ against the server of a URL; prints what it saw as JSON. Its keys have no hash tags.

    python rq_jobs.py URL
"""

import json
import logging
import operator
import sys

from redis import Redis
from rq import Queue, SimpleWorker
from rq.registry import FailedJobRegistry, FinishedJobRegistry


def main(url):
    logging.disable(logging.CRITICAL)
    connection = Redis.from_url(url)
    connection.flushall()
    fast, slow = Queue("fast", connection=connection), Queue("slow", connection=connection)
    sums = [fast.enqueue(operator.add, number, number) for number in range(5)]
    after = slow.enqueue(operator.mul, 6, 7, depends_on=sums[-1])
    batch = fast.enqueue_many([Queue.prepare_data(operator.neg, (3,)) for _ in range(3)])
    bad = slow.enqueue(operator.truediv, 1, 0)
    seen = {"queued": [fast.count, slow.count]}
    SimpleWorker([fast, slow], connection=connection).work(burst=True)
    seen["sums"] = [job.return_value() for job in sums]
    seen["after"] = after.return_value()
    seen["batch"] = [job.return_value() for job in batch]
    seen["bad"] = bad.get_status()
    failed = FailedJobRegistry(queue=slow)
    seen["finished"] = [len(FinishedJobRegistry(queue=queue)) for queue in (fast, slow)]
    seen["failed"] = len(failed)
    failed.requeue(bad.id)
    seen["again"] = [len(failed), slow.count]
    seen["deleted"] = slow.delete()
    seen["queues"] = sorted(queue.name for queue in Queue.all(connection=connection))
    print(json.dumps(seen, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
