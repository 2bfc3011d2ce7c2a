"""Tally at a steady load and in bad moments: what it costs the nodes, latencies, memory in bulk."""

import contextlib
import os
import pathlib
import resource
import signal
import socket
import threading
import time

from rig import Client, cpu_ns, load, progress

STEADY_RATE = 100_000
RATE = 20_000
HOT_KEYS = 1_000
SECONDS = 6
STOP_S = 2
FLUSHED_KEYS = 100_000
MGET_KEYS = 1_000_000
WARM_KEYS = 1_000_000
IDLE_CONNECTIONS = 5_000


# ---------------------------------------------------------------------------------- node load


def node_load(rig, binary):
    """A Markdown table: what an open load on hot counters costs the servers, by the second."""
    lines = [
        f"INCR of {HOT_KEYS:,} hot keys at {STEADY_RATE:,}/s by the clock.",
        "",
        "| target | answered/s | p99 ms | nodes' CPU, ms a second | Tally's |",
        "|---|--:|--:|--:|--:|",
    ]
    for target in (rig.bare(), rig.tally(binary, name="load")):
        progress(f"node load: {target.name}")
        steady = ("--rate", STEADY_RATE, "--keys", HOT_KEYS, "--seconds")
        load(target.port, *steady, 2)  # warms the keys
        nodes, proxy = cpu_ns(target.node_pids), cpu_ns(target.proxy_pids)
        report = load(target.port, *steady, SECONDS)
        nodes = (cpu_ns(target.node_pids) - nodes) / SECONDS / 1e6
        proxy = (cpu_ns(target.proxy_pids) - proxy) / SECONDS / 1e6
        answered = report["answered"] / SECONDS
        cells = [target.name, f"{answered:,.0f}", f"{report['p99_ms']:.2f}", f"{nodes:.1f}"]
        lines.append("| " + " | ".join([*cells, f"{proxy:.0f}"]) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------- latencies


def tails(rig, binary):
    """A Markdown table: an open load on hot counters, in quiet and in bad moments."""
    more = '[counters]\nflush_interval = "3s"\n'
    target = rig.tally(binary, name="tails", more=more)
    measure(target, 2)  # warms the keys
    rows = [("nothing else", measure(target, SECONDS))]

    progress("tails: one node stopped")
    with later(1, lambda: stop_for(target.node_pids[0], STOP_S)):
        rows.append((f"one node stopped for {STOP_S} s", measure(target, SECONDS)))

    progress("tails: a large flush")
    # Made dirty just before, so that a flush falls into the time that is measured.
    load(target.port, "--keys", FLUSHED_KEYS, "--prefix", "flush:", "--seconds", 2)
    rows.append((f"{FLUSHED_KEYS:,} keys are flushed", measure(target, SECONDS)))

    progress("tails: a giant MGET")
    with later(1, lambda: giant_mget(target.port)):
        rows.append((f"a client asks an MGET of {MGET_KEYS:,} keys", measure(target, SECONDS)))

    lines = [
        f"INCR of {HOT_KEYS:,} hot keys, {RATE:,}/s by the clock, latencies in ms from the time "
        "at which a request had to go.",
        "",
        "| while | p50 | p99 | p99.9 | max | errors | unanswered |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, report in rows:
        cells = [f"{report[field]:.2f}" for field in ("p50_ms", "p99_ms", "p999_ms", "max_ms")]
        cells += [str(report["errors"]), str(report["unanswered"])]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(target, seconds):
    return load(target.port, "--rate", RATE, "--keys", HOT_KEYS, "--seconds", seconds)


@contextlib.contextmanager
def later(seconds, action):
    """Does something in another thread after a while, and waits for its end."""

    def run():
        time.sleep(seconds)
        action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def stop_for(pid, seconds):
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def giant_mget(port):
    request = [b"MGET"] + [b"giant:%010d" % number for number in range(MGET_KEYS)]
    with Client(port, timeout=60) as client:
        (values,) = client.send(request)
    assert len(values) == MGET_KEYS, "an MGET answers for every key"


# ------------------------------------------------------------------------------------- memory


def memory(rig, binary):
    """A Markdown table: what warm keys and idle connections take."""
    # At so long an interval a few increments make a key worth being warm, among a million too.
    more = '[counters]\nmax_keys = 4000000\nflush_interval = "1m"\n'
    target = rig.tally(binary, name="memory", more=more)
    (pid,) = target.proxy_pids
    empty = resident_bytes(pid)
    progress(f"memory: {WARM_KEYS:,} warm keys")
    name = b"memory:%010d"
    with Client(target.port, timeout=60) as client:
        for start in range(0, WARM_KEYS, 5_000):
            requests = [[b"INCR", name % key] for key in range(start, start + 5_000)]
            for _ in range(5):  # known, warm, and three that are counted here
                client.send(*requests)
            client.send([b"TALLY", b"FLUSH"])
        (stats,) = client.send([b"TALLY", b"STATS"])
    known = dict(zip(stats[::2], stats[1::2]))[b"keys"]
    assert known >= WARM_KEYS * 0.95, f"only {known:,} keys are warm"
    warm = resident_bytes(pid)
    progress(f"memory: {IDLE_CONNECTIONS:,} idle connections")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", target.port)))
            idle.sendall(b"PING\r\n")
            idle.recv(16)
        connected = resident_bytes(pid)
    per_key = (warm - empty) / known - len(name % 0)
    per_connection = (connected - warm) / IDLE_CONNECTIONS
    return "\n".join(
        [
            "| resident memory of Tally | bytes |",
            "|---|--:|",
            f"| at the start | {empty:,} |",
            f"| for each of {known:,} warm keys, beyond the key itself | {per_key:,.0f} |",
            f"| for each of {IDLE_CONNECTIONS:,} idle connections | {per_connection:,.0f} |",
            f"| with all of them | {connected:,} |",
        ]
    )


def resident_bytes(pid):
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
