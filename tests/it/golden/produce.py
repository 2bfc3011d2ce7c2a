#!/usr/bin/env python3
"""Records where twemproxy (nutcracker 0.5.0) places keys.

    produce.py [--keys N] [--out FOLDER]

Starts nutcracker before fake Redis servers, each of which answers every GET with its own
number, and writes one file per set of nodes, `FOLDER/ring-<set>.txt`:

    nodes <name>:<weight> ...        in the order of the configuration
    hash_tag <two characters or ->
    keys <number> <md5 of the keys, each followed by its length as 2 bytes, big-endian>
    <hash> <one character per key: 0-9 a-z, the index of its node>

The keys come from a generator that `tests/it/ring.rs` repeats; see `key` below.
"""

import argparse
import asyncio
import hashlib
import os
import pathlib
import socket
import struct
import sys
import tempfile

HASHES = [
    "one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32",
    "fnv1a_32", "hsieh", "murmur", "jenkins",
]  # fmt: skip
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

# Nodes, hash tag, hashes. Names out of order and of several lengths, since twemproxy sorts them;
# weights far apart. 25 equal nodes show its rounding: each gets 156 points, not 160.
SETS = {
    "2": ([("redis_7071", 1), ("redis_7070", 3)], None, HASHES),
    "3": ([("gamma", 100), ("be", 37), ("alpha-long", 9)], "{}", HASHES),
    "25": (
        [(f"node-{i}" if i % 2 else f"n{i * i}", 1 + i * i % 17) for i in range(25)],
        "::",
        HASHES,
    ),
    "25-equal": ([(f"10.0.0.{i}:6379", 1) for i in range(25)], None, ["fnv1a_64"]),
}


class Random:
    """SplitMix64, so that the Rust side can repeat it."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return (z ^ (z >> 31)) % bound

    def bytes(self, longest):
        return bytes(self.below(256) for _ in range(1 + self.below(longest)))


def key(i, random):
    """The key number `i`; eight kinds take turns."""
    n = i // 8
    match i % 8:
        case 0:
            return b"counter:%012d" % n
        case 1:
            return b"visits:page/%d" % random.below(10**9)
        case 2:
            return b"user:{%d}:visits:%d" % (random.below(2000), n)
        case 3:
            return random.bytes(40)
        case 4:
            return bytes([n]) if n < 256 else random.bytes(3)
        case 5:
            return "счётчик:%d:é".encode() % n
        case 6:
            shapes = [b"{}%d", b"{%d", b"}%d{tag}", b"{{%d}}", b"::%d", b":%d", b"{\xff%d}{b}"]
            return shapes[n % 7] % random.below(10**6)
        case _ if n == 0:
            return b""
        case _:
            return b"k" * random.below(64) + b"%d" % n


def keys(count):
    random = Random(20240229)
    return [key(i, random) for i in range(count)]


def digest(all_keys):
    return hashlib.md5(b"".join(k + struct.pack(">H", len(k)) for k in all_keys)).hexdigest()


def free_ports(count):
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


async def read_request(reader):
    """One request's arguments; None at the end of the stream."""
    head = await reader.readline()
    if not head:
        return None
    arguments = []
    for _ in range(int(head[1:])):
        length = int((await reader.readline())[1:])
        arguments.append((await reader.readexactly(length + 2))[:-2])
    return arguments


async def fake_redis(index):
    """A server that answers every request with its own number; returns it and its port."""
    reply = b"$1\r\n%c\r\n" % ord(DIGITS[index])

    async def serve(reader, writer):
        try:
            while await read_request(reader) is not None:
                writer.write(reply)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def place(port, all_keys):
    """One character per key: what the pool at `port` answers for it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    placed = []
    for start in range(0, len(all_keys), 250):
        batch = all_keys[start : start + 250]
        writer.write(b"".join(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(k), k) for k in batch))
        for k in batch:
            head = await reader.readline()
            if head != b"$1\r\n":
                raise RuntimeError(f"nutcracker answered {head!r} for the key {k!r}")
            placed.append((await reader.readexactly(3))[:1].decode())
    writer.close()
    return "".join(placed)


def configuration(pools, server_ports):
    """nutcracker's YAML: one pool per set of nodes and hash."""
    lines = []
    for (name, hash_name), port in pools.items():
        nodes, hash_tag, _ = SETS[name]
        lines += [
            f"{hash_name}_{name}:",
            f"  listen: 127.0.0.1:{port}",
            f"  hash: {hash_name}",
            "  distribution: ketama",
            "  redis: true",
            "  auto_eject_hosts: false",
            "  servers:",
        ]
        for (node, weight), server_port in zip(nodes, server_ports):
            lines.append(f"    - 127.0.0.1:{server_port}:{weight} {node}")
        if hash_tag:
            lines.append(f'  hash_tag: "{hash_tag}"')
    return "\n".join(lines) + "\n"


async def connectable(port, process):
    """Returns once something listens on `port`."""
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise NotStartedError(f"nutcracker ended with status {process.returncode}")


class NotStartedError(RuntimeError):
    """Most often because somebody else took a port in the meantime."""


async def produce(count, out):
    servers, server_ports = [], []
    for index in range(max(len(nodes) for nodes, _, _ in SETS.values())):
        server, port = await fake_redis(index)
        servers.append(server)
        server_ports.append(port)
    cases = [(name, hash_name) for name in SETS for hash_name in SETS[name][2]]
    stats_port, *ports = free_ports(1 + len(cases))
    pools = dict(zip(cases, ports))

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "nutcracker.yml")
        pathlib.Path(path).write_text(configuration(pools, server_ports))
        process = await asyncio.create_subprocess_exec(
            "nutcracker", "-c", path, "-a", "127.0.0.1", "-s", str(stats_port),
            "-o", os.path.join(folder, "log"),
        )  # fmt: skip
        try:
            for port in ports:
                await asyncio.wait_for(connectable(port, process), 10)
            all_keys = keys(count)
            for name, (nodes, hash_tag, hashes) in SETS.items():
                text = "nodes " + " ".join(f"{node}:{weight}" for node, weight in nodes) + "\n"
                text += f"hash_tag {hash_tag or '-'}\n"
                text += f"keys {count} {digest(all_keys)}\n"
                for hash_name in hashes:
                    text += f"{hash_name} {await place(pools[name, hash_name], all_keys)}\n"
                (out / f"ring-{name}.txt").write_text(text)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
    for server in servers:
        server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()
    for attempt in range(3):
        try:
            asyncio.run(asyncio.wait_for(produce(arguments.keys, arguments.out), 300))
            break
        except NotStartedError:
            if attempt == 2:
                raise


if __name__ == "__main__":
    sys.exit(main())
