#!/usr/bin/env python3
"""Redis's own test suite against Tally with two nodes, beside a plain Redis: `make compat`.

    cargo build --release && python3 tests/compat/run.py [UNIT...]

The suite comes from the source package of the system's Redis (`apt-get source redis`), kept
under target/compat with lists of its own, so nothing of the system's configuration changes and
nothing of the suite is in this repository. It runs in external mode, one unit at a time, on
fresh servers each: what it needs of a server process (DEBUG, replication, files) is excluded.

Prints one table, the tests that pass on Redis and not on Tally, and writes both as JSON.

A test that hangs is ended by the suite's own watch; the unit is then run once more without it,
as often as needed, so that one hang does not hide what comes after. A unit has a limit in all.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The benchmark's servers are the ones needed here.
sys.path.insert(0, str(ROOT / "benches"))

from rig import BenchError, Rig, progress  # noqa: E402

# The counter core: what Tally is for.
CORE = (
    "type/incr type/string expire keyspace scan protocol quit info-command multi scripting "
    "pubsub other introspection-2 type/hash"
).split()
OTHERS = (
    "functions introspection type/list type/list-3 type/set type/zset type/stream "
    "type/stream-cgroups sort bitops bitfield hyperloglog geo dump slowlog "
    "latency-monitor tracking pause"
).split()
# What the suite skips in external mode, and what does not need a server of its own all the same.
OPENED = "acl acl-v2 auth info pubsubshard".split()
UNITS = CORE + OTHERS + OPENED

TAGS = "-needs:repl -needs:debug -needs:save -needs:reset -large-memory -slow"
# Without progress for this long the suite ends itself and says in which test. The longest test of
# the units above, which writes requests of many kilobytes in pieces, takes 5 s on some machines and 46
# on others, on Redis too: there each waits 40 ms for a delayed acknowledgement.
STALL_S = 120
# Runs of one unit, each without the tests in which the ones before it hung.
RUNS = 16


# ---------------------------------------------------------------------------------- the suite


def fetch(folder):
    """The folder of Redis's unpacked source package, fetched if it is not there."""
    found = sorted(folder.glob("redis-*/runtest"))
    if found:
        return found[-1].parent
    if not shutil.which("apt-get"):
        raise BenchError("the suite comes by apt-get; without it, give its folder: --suite")
    need("tclsh", "tcl")
    need("dpkg-source", "dpkg-dev")
    state = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial", "sources"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "sources" / "redis.sources").write_text(source_entries())
    configuration = state / "apt.conf"
    configuration.write_text(
        'Dir::Etc::sourcelist "/dev/null";\n'
        f'Dir::Etc::sourceparts "{state}/sources";\n'
        f'Dir::State::lists "{state}/lists";\n'
        f'Dir::Cache "{state}/cache";\n'
        # The sandbox's user can not write into this folder.
        'APT::Sandbox::User "root";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(configuration)}
    for arguments in (["update"], ["source", "redis"]):
        command(["apt-get", "--quiet", *arguments], folder, environment)
    found = sorted(folder.glob("redis-*/runtest"))
    if not found:
        raise BenchError("apt-get source redis gave no runtest")
    return found[-1].parent


def opened(suite, output):
    """A copy of the suite that does not skip the units of OPENED."""
    folder = output / "opened"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(suite / "tests", folder / "tests")
    shutil.copy2(suite / "runtest", folder)
    for unit in OPENED:
        file = folder / "tests" / "unit" / f"{unit}.tcl"
        file.write_bytes(file.read_bytes().replace(b"external:skip", b"external:opened"))
    return folder


def source_entries():
    """The system's own archives, as archives of source packages."""
    entries = []
    for file in sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*.sources")):
        for entry in file.read_text().split("\n\n"):
            lines = [line for line in entry.splitlines() if line and not line.startswith("#")]
            if any(re.fullmatch(r"Types:.*\bdeb\b.*", line) for line in lines):
                lines = [line for line in lines if not line.startswith("Types:")]
                entries.append("\n".join(["Types: deb-src", *lines]))
    listed = pathlib.Path("/etc/apt/sources.list")
    for line in listed.read_text().splitlines() if listed.exists() else []:
        found = re.fullmatch(r"deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
        if found:
            options, uri, suite, components = found.groups()
            text = f"Types: deb-src\nURIs: {uri}\nSuites: {suite}\nComponents: {components}"
            signed = re.search(r"signed-by=(\S+)", options or "")
            entries.append(text + (f"\nSigned-By: {signed[1]}" if signed else ""))
    return "\n\n".join(entries) + "\n"


def need(program, package):
    if not shutil.which(program):
        as_root = [] if os.geteuid() == 0 else ["sudo"]
        command([*as_root, "apt-get", "update", "-q"], ROOT)
        command([*as_root, "apt-get", "install", "-y", "-q", package], ROOT)


def command(arguments, folder, environment=None):
    progress("+ " + " ".join(arguments))
    done = subprocess.run(
        arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
    )
    if done.returncode != 0:
        raise BenchError(f"{arguments[0]} ended with {done.returncode}")


# ---------------------------------------------------------------------------------- one unit


def run_unit(suite, unit, port, options, log):
    """What each test of `unit` came to: {name: "ok" or why not}; and how often it hung."""
    results, hung = {}, []
    for _ in range(RUNS):
        arguments = ["./runtest", "--host", "127.0.0.1", "--port", str(port)]
        arguments += ["--single", f"unit/{unit}", "--singledb"]
        arguments += ["--ignore-encoding", "--ignore-digest"]
        # The suite takes the first of the 32 ports below this one that is free when it looks.
        # Below the range of clients' ports, where one could take it meanwhile.
        arguments += ["--baseport", str(random.randrange(20_000, 30_000, 32))]
        arguments += ["--timeout", str(STALL_S)]
        arguments += ["--tags", options.tags, "--dont-clean"]
        if not options.strict:
            arguments.append("--durable")
        for name in hung:
            arguments += ["--skiptest", name]
        output = bounded(arguments, suite, options.limit, log)
        seen, stuck = read(output)
        # A repetition tells of more tests; it can not improve one.
        results = {**seen, **results}
        if stuck is None or options.strict:
            return results, hung
        results[stuck] = "hung"
        if stuck in hung:
            return results, hung
        hung.append(stuck)
    return results, hung


def bounded(arguments, folder, limit, log):
    """The output of a command, which is ended after `limit` seconds with all it started."""
    with log.open("ab+") as file:
        start = file.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            child.wait(limit)
        except subprocess.TimeoutExpired:
            file.write(b"\n[limit]: the unit was ended\n")
        finally:
            # The suite's client outlives its server when that ends early.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        file.seek(start)
        return file.read().decode(errors="replace")


def read(output):
    """Results by name, and the test in which the run hung, if it did."""
    results, stuck, latest = {}, None, None
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    for line in plain.splitlines():
        if found := re.match(r"\[ok\]: (.*) \(\d+ ms\)$", line):
            name = distinct(found[1], results)
            results[name] = "ok"
        elif found := re.match(r"\[err\]: (.*?) in tests/\S+$", line):
            latest = distinct(found[1], results)
            results[latest] = ""
            continue
        elif found := re.match(r"\[err\]: (.*)$", line):
            # Outside of a test, in the text of the unit itself.
            latest = distinct("the unit's own text", results)
            results[latest] = found[1]
        elif found := re.match(r"\[exception\]: Executing test client: (.*)", line):
            latest = distinct("the unit's own text", results)
            results[latest] = found[1]
        elif found := re.search(r"=> \(IN PROGRESS\) (.*)$", line):
            stuck = found[1]
        elif re.match(r"\[(ready|skip|ignore|testing|done|TIMEOUT|\d+/\d+ done)\]", line):
            pass
        elif latest and results[latest] == "" and line.strip():
            results[latest] = line.strip()
        latest = latest if not re.match(r"\[ok\]", line) else None
    return results, stuck


def distinct(name, results):
    """`name`, numbered when a unit uses it again (for each encoding, say)."""
    number, candidate = 1, name
    while candidate in results:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


# -------------------------------------------------------------------------------- the targets


def start_redis(rig):
    return rig.redis().port


def start_tally(rig, binary, mode):
    """Tally with defaults before two nodes."""
    proxy, _ = rig.start_tally(binary, f"counters.mode={mode}" if mode else None)
    return proxy.port


def run_on(target, suite, unit, options):
    with tempfile.TemporaryDirectory(prefix="tally-compat-") as folder:
        with Rig(pathlib.Path(folder)) as rig:
            if target == "redis":
                port = start_redis(rig)
            else:
                port = start_tally(rig, options.binary, options.mode)
            log = options.output / f"{target}-{unit.replace('/', '-')}.log"
            log.unlink(missing_ok=True)
            return run_unit(suite, unit, port, options, log)


# --------------------------------------------------------------------------------- the report


def passed(results):
    return sum(result == "ok" for result in results.values())


def table(report):
    lines = ["| unit | Redis | Tally | not on Tally | hung |", "| --- | ---: | ---: | ---: | ---: |"]
    groups = [("core", CORE), ("others", OTHERS), ("opened", OPENED), ("all", UNITS)]
    units = [unit for unit in UNITS if unit in report]
    for unit in units + [unit for unit in report if unit not in units]:
        lines.append(row(unit, [report[unit]]))
    for name, members in groups:
        rows = [report[unit] for unit in members if unit in report]
        if len(rows) > 1:
            lines.append(row(f"**{name}**", rows))
    return "\n".join(lines)


def row(name, rows):
    redis = sum(entry["redis"]["passed"] for entry in rows)
    tally = sum(entry["tally"]["passed"] for entry in rows)
    hung = sum(len(entry["tally"]["hung"]) for entry in rows)
    differences = sum(len(entry["differences"]) for entry in rows)
    return f"| {name} | {redis} | {tally} | {differences} | {hung} |"


def summary(redis, tally):
    """One unit of the report."""
    differences = {
        name: tally[0].get(name, "not reached")
        for name, result in redis[0].items()
        if result == "ok" and tally[0].get(name) != "ok"
    }
    outside = {name: text for name, text in tally[0].items() if name not in redis[0] and text != "ok"}
    return {
        "redis": side(*redis),
        "tally": side(*tally),
        "differences": differences,
        "outside_of_tests": outside,
    }


def side(results, hung):
    failed = sorted(name for name, result in results.items() if result != "ok")
    return {"passed": passed(results), "failed": failed, "hung": hung}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("units", nargs="*", metavar="UNIT", help="such as type/incr; default: all")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--binary", type=pathlib.Path, default=target / "release" / "tally")
    parser.add_argument("--mode", choices=["buffered", "exact"], help="counters.mode")
    parser.add_argument("--suite", type=pathlib.Path, help="Redis's unpacked sources")
    parser.add_argument("--tags", default=TAGS)
    parser.add_argument("--limit", type=float, default=240, help="seconds for a run of a unit")
    parser.add_argument("--strict", action="store_true", help="end a unit at its first exception")
    parser.add_argument("--output", type=pathlib.Path, default=target / "compat")
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    suite = options.suite.resolve() if options.suite else fetch(options.output)
    open_suite = opened(suite, options.output)
    report = {}
    for unit in options.units or UNITS:
        unit = unit.removeprefix("unit/")
        used = open_suite if unit in OPENED else suite
        redis = run_on("redis", used, unit, options)
        tally = run_on("tally", used, unit, options)
        report[unit] = summary(redis, tally)
        progress(f"{unit}: Redis {passed(redis[0])}, Tally {passed(tally[0])}")

    document = {
        "date": datetime.date.today().isoformat(),
        "suite": suite.name,
        "tags": options.tags,
        "units": report,
    }
    file = options.output / "report.json"
    file.write_text(json.dumps(document, indent=2) + "\n")
    print(table(report))
    for unit, entry in report.items():
        for name, why in [*entry["differences"].items(), *entry["outside_of_tests"].items()]:
            print(f"{unit}: {name}: {why}")
    progress(f"written: {file}")


if __name__ == "__main__":
    try:
        main()
    except BenchError as error:
        sys.exit(f"error: {error}")
