"""redis-py (4 or newer) over TLS: a URL and the file of the authority; prints what it saw."""

import sys

import redis

url, ca = sys.argv[1:3]
client = redis.Redis.from_url(url, ssl_ca_certs=ca)
first = client.incr("counter")
pipeline = client.pipeline(transaction=False)
for _ in range(1999):
    pipeline.incr("counter")
last = pipeline.execute()[-1]
try:
    # Without the authority's file the system's authorities are asked, who do not know it.
    redis.Redis.from_url(url).ping()
    stranger = "let in"
except redis.ConnectionError:
    stranger = "refused"
print(first, last, stranger)
