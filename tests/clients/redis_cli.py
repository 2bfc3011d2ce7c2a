"""redis-cli at a terminal, against the server of a URL; prints what the terminal shows.

Each line is typed when the prompt is there, so that what is echoed does not depend on timing.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
import urllib.parse

LIMIT_S = 20

# What is typed in one sitting. A tab completes, and the shadow behind a command is its hint.
SITTINGS = {
    "plain": [
        "ping", "set k hello", "get k", "incr n", "incr n", "incrby n 40", "incr k", "get nothing",
        "mset a 1 b 2 c 3", "mget a b c d", "del a b c", "hset h f 1 g 2", "hgetall h",
        "rpush l 1 2 3", "lrange l 0 -1", "zadd z 1.5 m", "zrange z 0 -1 withscores", "type z",
        "object encoding n", "nosuch command", "get", 'echo "two words"', "2 incr n", "ttl n",
        "expire n 100", "persist n", "exists k n x", "randomkey nothing", "client setname cli",
        "client getname", "help incr", "hel\t get", "dbsize",
    ],
    "RESP3": ["hello 3", "hset m f 1", "hgetall m", "get nothing", "smembers nothing", "sadd s x",
              "smembers s", "zadd z2 2 m", "zscore z2 m", "zrange z2 0 -1 withscores", "set t x",
              "incr t", "incr u", "client tracking off"],
}  # fmt: skip
ARGUMENTS = {"plain": [], "RESP3": ["-3"]}


class Terminal:
    """A child at a terminal of 200 columns."""

    def __init__(self, arguments):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            # Without a size redis-cli asks the terminal where its cursor is.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
            environment = {**os.environ, "TERM": "xterm", "HOME": "/nonexistent"}
            environment["REDISCLI_HISTFILE"] = "/dev/null"
            os.execvpe(arguments[0], arguments, environment)
        self.seen = b""

    def type(self, text):
        os.write(self.terminal, text.encode())

    def read_until(self, end):
        """What appears up to `end`; a dead child ends it too."""
        deadline = time.monotonic() + LIMIT_S
        fresh = b""
        while not fresh.endswith(end):
            ready, _, _ = select.select([self.terminal], [], [], deadline - time.monotonic())
            if not ready:
                sys.exit(f"no {end!r} within {LIMIT_S} s: {fresh!r}")
            try:
                chunk = os.read(self.terminal, 65536)
            except OSError:
                break
            if not chunk:
                break
            fresh += chunk
        self.seen += fresh
        return fresh

    def close(self):
        os.close(self.terminal)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def sitting(host, port, name):
    terminal = Terminal(["redis-cli", "-h", host, "-p", port, *ARGUMENTS[name]])
    prompt = f"{host}:{port}> ".encode()
    terminal.read_until(prompt)
    # Each key draws the line anew; only after a reply does the prompt begin one.
    ready = b"\n" + prompt
    for line in SITTINGS[name]:
        for key in [*line, "\r"]:
            terminal.type(key)
        terminal.read_until(ready)
    terminal.type("quit\r")
    terminal.read_until(b"\n" * 1000)
    terminal.close()
    text = terminal.seen.decode(errors="replace").replace(port, "PORT")
    # What a server says of itself, the client's number, and how long a command took.
    text = re.sub(r'(\d+# "server" => ).*?\d+# "proto"', r'\1..."proto"', text, flags=re.S)
    text = re.sub(r'("modules" => ).*?(127\.0\.0\.1:PORT>)', r"\1...\2", text, flags=re.S)
    text = re.sub(r'("id" => \(integer\)) \d+', r"\1 ID", text)
    # A line of its own, from half a second on.
    return re.sub(r"\(\d+\.\d+s\)\r\n", "", text)


def main():
    url = urllib.parse.urlsplit(sys.argv[1])
    for name in SITTINGS:
        print(f"---- {name}")
        print(sitting(url.hostname, str(url.port), name).replace("\r", "\n"))


main()
