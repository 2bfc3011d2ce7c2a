"""Runs the visit counter against the server of a URL, and holds its answers to its document.

    python check.py redis://localhost:6379

The server is emptied first. Prints what was checked; ends with 1 at the first difference.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import redis

HERE = pathlib.Path(__file__).parent
START_LIMIT_S = 20


class App:
    """The app as a process of its own, on a port of its own choice."""

    def __init__(self, url, **settings):
        reader, writer = os.pipe()
        arguments = ["--log-level", "warning", "--no-access-log", "--app-dir", str(HERE)]
        # The socket is bound here, so that no port is taken between its choice and its use.
        code = (
            "import socket, sys, uvicorn\n"
            "listener = socket.create_server(('127.0.0.1', 0), backlog=256)\n"
            f"open({writer}, 'w').write(str(listener.getsockname()[1]))\n"
            f"sys.argv[1:] = ['app:app', '--fd', str(listener.fileno())] + {arguments!r}\n"
            "uvicorn.main()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "REDIS_URL": url, **settings},
            pass_fds=[writer],
        )
        os.close(writer)
        with os.fdopen(reader) as port:
            self.base = f"http://127.0.0.1:{int(port.read())}"

    def __enter__(self):
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                self.get("/visits/none")
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)

    def get(self, path):
        return self._call(path, "GET")

    def post(self, path):
        return self._call(path, "POST")

    def _call(self, path, method):
        request = urllib.request.Request(self.base + path, method=method)
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.load(response)


def check(what, actual, expected):
    if actual != expected:
        sys.exit(f"{what}: {actual!r}, expected {expected!r}")
    print(f"{what}: ok")


def check_one_process(url, server):
    with App(url) as app:
        check("a page without visits", app.get("/visits/new")["count"], 0)
        recorded = {"status": "success", "message": "Visit recorded for page home"}
        check("a visit", app.post("/visit/home"), recorded)
        check("its count", app.get("/visits/home"), {"count": 1, "served_via": server})
        check("again", app.get("/visits/home"), {"count": 1, "served_via": "in_memory"})
        app.post("/visit/home")
        own = {"count": 2, "served_via": server}
        check("a visit ends what is in memory", app.get("/visits/home"), own)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda _: app.post("/visit/crowd"), range(200)))
        check("200 visits from 20 clients", app.get("/visits/crowd")["count"], 200)
        for page in range(50):
            app.post(f"/visit/page-{page}")
        counts = {app.get(f"/visits/page-{page}")["count"] for page in range(50)}
        check("50 pages, on whichever shard", counts, {1})


def check_two_processes(url, server):
    with App(url, CACHE_SECONDS="0.2") as one, App(url, CACHE_SECONDS="0.2") as other:
        for app in [one, other, one]:
            app.post("/visit/shared")
        check("one page of two processes", one.get("/visits/shared")["count"], 3)
        other.post("/visit/shared")
        deadline = time.monotonic() + 20
        while (seen := one.get("/visits/shared"))["served_via"] == "in_memory":
            if time.monotonic() > deadline:
                sys.exit("what is in memory stays for ever")
        check("after the cache's time", seen, {"count": 4, "served_via": server})


def main():
    url = sys.argv[1]
    with redis.Redis.from_url(url) as client:
        client.flushall()
    server = f"redis_{urllib.parse.urlsplit(url).port}"
    check_one_process(url, server)
    check_two_processes(url, server)
    with App(url) as app:
        count = app.get("/visits/crowd")["count"]
        check("counts outlive the process", count, 200)


main()
