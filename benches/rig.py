"""The servers of a benchmark: started on free loopback ports, watched, and stopped again."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 15
# Pause before CPU times are read, in which replies and flushes in flight end.
SETTLE_S = 0.1
# redis-benchmark's -r: its INCR counts `counter:000000000000` up to this many of them.
KEYS = 10_000


class BenchError(Exception):
    """Ends the benchmark with its text as the message."""


def progress(text):
    """Tells the user, apart from the table on standard output."""
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------- processes


class Process:
    """A server that this script started; stopped by `stop`, which is safe to repeat."""

    def __init__(self, name, arguments, folder, port):
        self.name = name
        self.port = port
        self.log = folder / f"{name}-{port}.log"
        with self.log.open("wb") as log:
            # Its own session: Ctrl-C reaches this script only, which stops things in order.
            self.child = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self):
        return self.child.pid

    def wait_until_ready(self, answers):
        """Returns once `answers(port)` is true."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise BenchError(f"{self.name} ended at once{self.tail()}")
            with contextlib.suppress(OSError):
                if answers(self.port):
                    return
            time.sleep(0.02)
        raise BenchError(f"{self.name} was not ready after {START_TIMEOUT_S} s{self.tail()}")

    def tail(self):
        """The end of its log, for a message."""
        text = self.log.read_text(errors="replace").strip()
        return ":\n" + "\n".join(text.splitlines()[-15:]) if text else " (its log is empty)"

    def stop(self):
        """Asks by SIGTERM, insists after a while; returns the exit status."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
                progress(f"warning: {self.name} had to be killed")
        return self.child.returncode


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def cpu_ns(pids):
    """Time on a core of all threads of `pids` so far, in nanoseconds."""
    total = 0
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            # A thread may end between the listing and the reading.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((task / "schedstat").read_text().split()[0])
    return total


def pid_listening_on(port):
    """The process that listens on `port`, or None where /proc does not tell."""
    inodes = set()
    for family in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
                fields = line.split()
                is_listening = fields[3] == "0A"
                if is_listening and int(fields[1].rsplit(":", 1)[1], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in inodes:
                        return int(process.name)
    return None


def load(port, *arguments):
    """Runs examples/load.rs against `port`; its report."""
    root = pathlib.Path(__file__).resolve().parent.parent
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"), "release/examples/load")
    if not os.access(program, os.X_OK):
        raise BenchError(f"{program} is missing: `cargo build --release --examples`")
    command = [str(argument) for argument in (program, "--port", port, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------- client


class Client:
    """Just enough RESP2 to read counters."""

    def __init__(self, port, timeout=10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.stream = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def send(self, *requests):
        """The replies to `requests`, sent as one pipeline."""
        text = []
        for request in requests:
            text.append(b"*%d\r\n" % len(request))
            text += [b"$%d\r\n%b\r\n" % (len(part), part) for part in request]
        self.socket.sendall(b"".join(text))
        return [self.reply() for _ in requests]

    def reply(self):
        """One reply; an error reply is returned as a BenchError."""
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed in the middle of a reply")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            return BenchError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            return None if length < 0 else self.stream.read(length + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return rest


def answers_ping(port):
    with Client(port, timeout=1) as client:
        return client.send([b"PING"]) == [b"PONG"]


def accepts(port):
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


def sum_of_counters(port):
    """The sum of redis-benchmark's counters as the server at `port` tells it."""
    total = 0
    with Client(port, timeout=30) as client:
        for start in range(0, KEYS, 200):
            keys = [b"counter:%012d" % i for i in range(start, min(start + 200, KEYS))]
            for key, value in zip(keys, client.send(*[[b"GET", key] for key in keys])):
                if isinstance(value, BenchError):
                    raise BenchError(f"GET {key.decode()} on port {port}: {value}")
                total += int(value or 0)
    return total


# ------------------------------------------------------------------------------------ targets


class Target:
    """Something that redis-benchmark can drive."""

    def __init__(self, name, port, proxy_pids=(), node_pids=(), node_ports=()):
        self.name = name
        self.port = port
        self.proxy_pids = list(proxy_pids)
        self.node_pids = list(node_pids)
        self.node_ports = list(node_ports)
        self.process = None  # set when it must be stopped before its nodes are right: Tally
        self.increments = 0
        # A peer's nodes may hold counters from before.
        self.found = sum_of_counters(port)

    def settle(self):
        """Waits until what the last run left behind is done."""
        if self.process is not None:
            # Without the command, as behind an error reply, it flushes by its own clock.
            with contextlib.suppress(OSError), Client(self.port) as client:
                client.send([b"TALLY", b"FLUSH"])
        time.sleep(SETTLE_S)

    def faults(self):
        """Checks every increment, and stops Tally on the way. Returns what is wrong."""
        expected = self.found + self.increments
        faults = []

        def check(where, total):
            if total != expected:
                difference = f"{total - expected:+d}"
                faults.append(
                    f"{self.name}: counters add up to {total} {where}, "
                    f"but {expected} were counted ({difference})"
                )

        check("through it", sum_of_counters(self.port))
        if self.process is not None:
            status = self.process.stop()
            if status != 0:
                faults.append(f"{self.name}: ended with status {status}{self.process.tail()}")
        if self.node_ports:
            check("on its nodes", sum(sum_of_counters(port) for port in self.node_ports))
        return faults


class Rig:
    """Starts the targets; as a context manager stops all of it, whatever happens."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave servers behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for process in reversed(self.started):
            process.stop()

    def start(self, name, arguments, port, answers=answers_ping):
        process = Process(name, arguments, self.folder, port)
        self.started.append(process)
        process.wait_until_ready(answers)
        return process

    def redis(self):
        (port,) = free_ports(1)
        arguments = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", ""]
        arguments += ["--appendonly", "no", "--daemonize", "no", "--dir", self.folder]
        return self.start("redis-server", arguments, port)

    def bare(self):
        server = self.redis()
        return Target("redis", server.port, node_pids=[server.pid], node_ports=[server.port])

    def nutcracker(self):
        nodes = [self.redis(), self.redis()]
        port, stats_port = free_ports(2)
        config = self.folder / "nutcracker.yml"
        config.write_text(
            f"bench:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  distribution: ketama\n"
            "  redis: true\n  servers:\n"
            f"    - 127.0.0.1:{nodes[0].port}:1 redis_7070\n"
            f"    - 127.0.0.1:{nodes[1].port}:1 redis_7071\n"
        )
        arguments = ["nutcracker", "-c", config, "-a", "127.0.0.1", "-s", stats_port]
        proxy = self.start("nutcracker", arguments, port, accepts)
        return in_front("nutcracker", proxy, nodes)

    def start_tally(self, binary, setting=None, name="tally", more=""):
        """Tally and the two nodes behind it. `setting` is KEY=VALUE, given by its environment
        variable; `more` goes to the end of its configuration file."""
        nodes = [self.redis(), self.redis()]
        port, http_port = free_ports(2)
        text = f'[server]\nlisten = "127.0.0.1:{port}"\n'
        text += f'[admin]\nlisten = "127.0.0.1:{http_port}"\n'
        text += f'[journal]\npath = "{self.folder}/journal-{port}"\n'
        for label, node in zip(("redis_7070", "redis_7071"), nodes):
            text += f'[[nodes]]\nname = "{label}"\naddress = "127.0.0.1:{node.port}"\n'
        config = self.folder / f"{name}-{port}.toml"
        config.write_text(text + more)
        arguments = [binary, "--config", config]
        if setting:
            key, _, value = setting.partition("=")
            arguments = ["env", f"TALLY_{key.replace('.', '__').upper()}={value}", *arguments]
        return self.start("tally", arguments, port), nodes

    def tally(self, binary, setting=None, name="tally", more=""):
        proxy, nodes = self.start_tally(binary, setting, name, more)
        target = in_front(f"{name} ({setting})" if setting else name, proxy, nodes)
        target.process = proxy
        return target


def in_front(name, proxy, nodes):
    """The target that is `proxy` with `nodes` behind it."""
    pids, ports = [node.pid for node in nodes], [node.port for node in nodes]
    return Target(name, proxy.port, [proxy.pid], pids, ports)


def peer(text):
    """A target from `NAME=PORT[,NODE_PORT...]`: a proxy that runs already."""
    try:
        name, ports = text.split("=")
        port, *node_ports = [int(port) for port in ports.split(",")]
    except ValueError:
        raise BenchError(f"--peer {text}: must be NAME=PORT or NAME=PORT,NODE_PORT,...") from None
    proxy_pid = pid_listening_on(port)
    node_pids = [pid_listening_on(node_port) for node_port in node_ports]
    if None in [proxy_pid, *node_pids]:
        progress(f"warning: {name}: not every process can be seen; its CPU is left out")
        proxy_pid, node_pids = None, []
    try:
        return Target(name, port, [proxy_pid] if proxy_pid else [], node_pids, node_ports)
    except OSError as error:
        raise BenchError(f"--peer {text}: {error}") from None
