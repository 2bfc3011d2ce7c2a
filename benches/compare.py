#!/usr/bin/env python3
"""Tally, bare Redis, twemproxy and others under redis-benchmark, side by side.

    cargo build --release --bins --examples && python3 benches/compare.py

The default is what the README shows, in about five minutes. `--all` has more cases, `--tails`
looks at latencies in bad moments, `--memory` at bytes. `--also NAME=PATH` measures another build
of Tally in the same run: the only way to compare two on a machine that has other work.

Starts everything on free loopback ports and stops it again: a bare redis-server, and for Tally
and nutcracker (if installed) two redis-servers each. Prints one Markdown table.

How it measures, so that the figures can be judged:

- Repetitions are interleaved: each target once, then all again; medians with (min-max).
  Ratios compare with bare Redis of the same repetition, then the median is taken.
- A warm-up of each case finds the number of requests that takes about 3 s. Half a second of the
  same goes before each run, unmeasured: between two runs of a target others have theirs, and
  what was hot is forgotten.
- CPU is the time on a core of every thread of the process, from /proc/PID/task/*/schedstat,
  from before the run until Tally was told to flush and things were still for 0.1 s. What
  Tally owes its nodes after a run is so charged to that run.
- After the last run every counter is read through the target and then on the nodes, with
  Tally stopped by SIGTERM in between; both sums must be what was sent, or the exit status is 1.

Cases that redis-benchmark does not know are driven by examples/load.rs: `zipf` (1,000,000 keys,
key n with weight 1/n^0.99) and `pair` (INCR and EXPIRE in turn).

redis-benchmark is a single thread and shares the machine: where it is the bottleneck, compare
the CPU columns, not requests per second.
"""

import argparse
import contextlib
import csv
import datetime
import io
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

import chart
import extremes
from rig import KEYS, BenchError, Rig, cpu_ns, load, peer, progress

CLIENTS = 50
LIMIT_SCRIPT = """
local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current >= tonumber(ARGV[1]) then
  return -1
end
return redis.call('INCR', KEYS[1])
"""
# What redis-benchmark is told, or (a tuple) examples/load.rs.
CASES = {
    "incr": ["-t", "incr"],
    "get": ["-t", "get"],
    "set": ["-t", "set"],
    "hot": ["INCR", "hot:counter"],
    "mget50": ["MGET"] + ["key:__rand_int__"] * 50,
    "grant": ["EVAL", LIMIT_SCRIPT, "1", "grant:__rand_int__", "1000000000"],
    "deny": ["EVAL", LIMIT_SCRIPT, "1", "deny:__rand_int__", "1"],
    "zipf": ("--command", "incr", "--keys", "1000000", "--zipf", "0.99", "--prefix", "zipf:"),
    "pair": ("--command", "pair", "--keys", "10000", "--prefix", "pair:"),
    "cold": ["INCR", "cold:__rand_int__"],
}
# Of these as many different keys are drawn, of the others KEYS.
RANGES = {"cold": 10_000_000}
COMMANDS = ["incr", "get", "set"]
PIPELINES = [1, 32]
BENCHMARK_TIMEOUT_S = 120
# What goes before a run, as a part of it and in seconds.
LEAD_IN = 0.15
LEAD_IN_S = 0.5


# -------------------------------------------------------------------------------- measurement


def benchmark(target, command, pipeline, requests):
    """Runs redis-benchmark; returns requests per second, p50 and p99 in ms."""
    arguments = ["redis-benchmark", "-h", "127.0.0.1", "-p", target.port, "-c", CLIENTS]
    arguments += ["-r", RANGES.get(command, KEYS), "-P", pipeline, "-n", requests, "--csv"] + CASES[command]
    try:
        done = subprocess.run(
            [str(argument) for argument in arguments],
            capture_output=True,
            text=True,
            timeout=BENCHMARK_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"{command} on {target.name}: no end after {BENCHMARK_TIMEOUT_S} s"
        raise BenchError(message) from None
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    if done.returncode != 0 or len(rows) != 1:
        said = (done.stdout + done.stderr).strip()
        raise BenchError(f"{command} on {target.name}: redis-benchmark failed: {said}")
    if command == "incr":
        target.increments += requests
    row = rows[0]
    return float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"])


def whole_pipelines(requests, pipeline):
    """`requests` rounded so that redis-benchmark sends exactly that many."""
    unit = CLIENTS * pipeline
    return max(round(requests / unit), 1) * unit


def drive(target, command, pipeline, seconds):
    """Runs examples/load.rs for `seconds`; its report."""
    arguments = ["--connections", CLIENTS, "--pipeline", pipeline, "--seconds", seconds]
    return load(target.port, *arguments, *CASES[command])


def warm_up(target, command, pipeline, seconds):
    """Drives `target` a little; returns the number of requests that takes about `seconds`."""
    if isinstance(CASES[command], tuple):
        drive(target, command, pipeline, seconds)
        return None
    trial = whole_pipelines(10_000 * min(pipeline, 8), pipeline)
    if command in ("get", "mget50"):
        benchmark(target, "set", pipeline, trial)  # so that there is something to get
    benchmark(target, command, pipeline, trial)
    rate, _, _ = benchmark(target, command, pipeline, trial)
    return whole_pipelines(rate * seconds, pipeline)


def lead_in(target, command, pipeline, requests):
    """A little of what is measured next, so that hot keys are hot when that begins."""
    if requests is None:
        drive(target, command, pipeline, LEAD_IN_S)
    else:
        benchmark(target, command, pipeline, whole_pipelines(requests * LEAD_IN, pipeline))


def measure(target, command, pipeline, requests, seconds):
    """One run's figures; without `requests` of so many seconds."""
    lead_in(target, command, pipeline, requests)
    target.settle()
    proxy, nodes = cpu_ns(target.proxy_pids), cpu_ns(target.node_pids)
    if requests is None:
        report = drive(target, command, pipeline, seconds)
        requests, rate = report["answered"], report["rps"]
        p50, p99 = report["p50_ms"], report["p99_ms"]
        if report["errors"]:
            raise BenchError(f"{command} on {target.name}: {report['errors']} errors")
    else:
        rate, p50, p99 = benchmark(target, command, pipeline, requests)
    target.settle()
    proxy, nodes = cpu_ns(target.proxy_pids) - proxy, cpu_ns(target.node_pids) - nodes
    return {
        "requests": requests,
        "rps": rate,
        "p50_ms": p50,
        "p99_ms": p99,
        "proxy_us": proxy / requests / 1000 if target.proxy_pids else None,
        "nodes_us": nodes / requests / 1000 if target.node_pids else None,
    }


def run_all(targets, commands, pipelines, repetitions, seconds):
    """Every run: {(target name, command, pipeline): [figures of each repetition]}."""
    cases = [(command, pipeline) for command in commands for pipeline in pipelines]
    requests = {}
    for command, pipeline in cases:
        progress(f"warm-up: {command} P={pipeline}")
        for target in targets:
            found = warm_up(target, command, pipeline, seconds)
            requests[target.name, command, pipeline] = found
    runs = {case: [] for case in requests}
    for repetition in range(1, repetitions + 1):
        for command, pipeline in cases:
            progress(f"repetition {repetition} of {repetitions}: {command} P={pipeline}")
            for target in targets:
                case = (target.name, command, pipeline)
                figures = measure(target, command, pipeline, requests[case], seconds)
                runs[case].append(figures)
    return runs


def compare_with_bare(runs, bare):
    """Adds to each run its ratios to `bare`'s run of the same repetition."""
    for (name, command, pipeline), measured in runs.items():
        for run, base in zip(measured, runs[bare, command, pipeline]):
            parts = [run["nodes_us"]] if name == bare else [run["proxy_us"], run["nodes_us"]]
            known = None not in parts
            run["rps_ratio"] = run["rps"] / base["rps"]
            run["cpu_ratio"] = sum(parts) / base["nodes_us"] if known else None


# ------------------------------------------------------------------------------------- report


def spread(measured, field, form):
    """`median (min-max)` of one figure."""
    values = [run[field] for run in measured if run[field] is not None]
    if not values:
        return "-"
    middle = format(statistics.median(values), form)
    low, high = format(min(values), form), format(max(values), form)
    return middle if low == high else f"{middle} ({low}-{high})"


def table(runs):
    """The Markdown table."""
    columns = {
        "requests/s": ("rps", ",.0f"),
        "p50 ms": ("p50_ms", ".2f"),
        "p99 ms": ("p99_ms", ".2f"),
        "proxy CPU µs/op": ("proxy_us", ".2f"),
        "nodes CPU µs/op": ("nodes_us", ".2f"),
        "requests/s, × bare": ("rps_ratio", ".2f"),
        "server CPU, × bare": ("cpu_ratio", ".2f"),
    }
    lines = [
        "| target | command | P | " + " | ".join(columns) + " |",
        "|---|---|--:|" + "--:|" * len(columns),
    ]
    for (name, command, pipeline), measured in runs.items():
        cells = [name, command.upper(), str(pipeline)]
        cells += [spread(measured, field, form) for field, form in columns.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first_line(*command):
    """The first line that a program says about itself."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter((done.stdout + done.stderr).strip().splitlines()), None)


def circumstances(arguments, targets):
    """What the figures depend on."""
    model = "unknown CPU"
    with contextlib.suppress(OSError, StopIteration):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ", 1)[1] for line in lines if line.startswith("model name"))
    names = [target.name for target in targets]
    programs = [first_line("redis-server", "--version"), first_line("redis-benchmark", "--version")]
    if "nutcracker" in names:
        programs.append(first_line("nutcracker", "-V"))
    if not arguments.no_tally:
        programs.append(first_line(str(arguments.tally), "--version"))
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "kernel": f"{platform.system()} {platform.release()}",
        "programs": [said for said in programs if said],
        "load": round(os.getloadavg()[0], 2),
        "clients": CLIENTS,
        "keys": KEYS,
        "repetitions": arguments.repetitions,
    }


def header(facts):
    programs = "; ".join(facts["programs"])
    return (
        f"{facts['date']}; {facts['cores']} cores, {facts['cpu']}; {facts['kernel']}; load "
        f"{facts['load']} at the start; {programs}. {facts['clients']} clients, {facts['keys']} "
        f"keys; median (min-max) of {facts['repetitions']}."
    )


# --------------------------------------------------------------------------------------- main


def parse_arguments():
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    binary = target / "release/tally"
    add("--tally", type=pathlib.Path, default=binary, metavar="PATH", help="the binary to measure")
    add("--no-tally", action="store_true", help="measure the others only")
    add(
        "--with",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another Tally with this setting, e.g. counters.mode=exact; may be repeated",
    )
    add(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PORT[,NODE_PORT...]",
        help="a proxy that runs already, with its nodes for their CPU; may be repeated",
    )
    add(
        "--also",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another build of Tally, measured in turn with this one; may be repeated",
    )
    add("--only", action="append", choices=list(CASES), help="may be repeated")
    add("--all", action="store_true", help="all cases: " + ", ".join(CASES))
    add("--node-load", action="store_true", help="also what a steady load costs the nodes")
    add("--tails", action="store_true", help="also latencies while something goes wrong")
    add("--memory", action="store_true", help="also bytes per warm key and idle connection")
    add("--chart", type=pathlib.Path, metavar="FILE", help="also draw the ratios as SVG")
    add("--pipeline", action="append", type=int, metavar="P", help="default 1 and 32; repeatable")
    add("--repetitions", type=int, metavar="N", help="default 3, with --quick 1")
    add("--quick", action="store_true", help="one repetition of 0.5 s each: a smoke test")
    add("--json", type=pathlib.Path, metavar="FILE", help="also write every run's figures here")
    arguments = parser.parse_args()
    if arguments.repetitions is None:
        arguments.repetitions = 1 if arguments.quick else 3
    if arguments.repetitions < 1 or any(pipeline < 1 for pipeline in arguments.pipeline or []):
        parser.error("--repetitions and --pipeline must be at least 1")
    arguments.tally = arguments.tally.resolve()
    for text in arguments.also:
        name, separator, path = text.partition("=")
        if not (name and separator and os.access(path, os.X_OK)):
            parser.error(f"--also {text}: must be NAME=PATH of a program")
    return arguments


def check_programs(arguments):
    for program in ("redis-server", "redis-benchmark"):
        if shutil.which(program) is None:
            raise BenchError(
                f"{program} is not installed: `apt install redis-server redis-tools` (Debian, "
                "Ubuntu) or `dnf install redis` (Fedora)"
            )
    if not pathlib.Path("/proc/self/schedstat").exists():
        raise BenchError("CPU times come from /proc/PID/task/*/schedstat, which is not here")
    if not arguments.no_tally and not os.access(arguments.tally, os.X_OK):
        raise BenchError(
            f"{arguments.tally} is missing: `cargo build --release` first, give --tally PATH, or "
            "--no-tally to measure the others"
        )


def start_targets(arguments, rig):
    """Bare Redis first."""
    targets = [rig.bare()]
    if shutil.which("nutcracker"):
        targets.append(rig.nutcracker())
    else:
        progress("nutcracker (twemproxy) is not installed: left out")
    targets += [peer(text) for text in arguments.peer]
    if not arguments.no_tally:
        settings = [None, *arguments.settings]
        targets += [rig.tally(arguments.tally, setting) for setting in settings]
    for text in arguments.also:
        name, _, path = text.partition("=")
        targets.append(rig.tally(pathlib.Path(path).resolve(), name=name))
    names = [target.name for target in targets]
    if len(set(names)) != len(names):
        raise BenchError(f"two targets have one name: {', '.join(names)}")
    return targets


def compare(arguments):
    check_programs(arguments)
    wanted = arguments.only or (CASES if arguments.all else COMMANDS)
    commands = [command for command in CASES if command in wanted]
    pipelines = list(dict.fromkeys(arguments.pipeline or PIPELINES))
    seconds = 0.5 if arguments.quick else 3
    with (
        tempfile.TemporaryDirectory(prefix="tally-bench-") as folder,
        Rig(pathlib.Path(folder)) as rig,
    ):
        targets = start_targets(arguments, rig)
        facts = circumstances(arguments, targets)
        runs = run_all(targets, commands, pipelines, arguments.repetitions, seconds)
        compare_with_bare(runs, targets[0].name)
        print(header(facts), table(runs), sep="\n\n", flush=True)
        if arguments.chart:
            arguments.chart.write_text(chart.draw(runs, targets[0].name, header(facts)))
        if arguments.node_load:
            print("", extremes.node_load(rig, arguments.tally), sep="\n", flush=True)
        if arguments.tails:
            print("", extremes.tails(rig, arguments.tally), sep="\n", flush=True)
        if arguments.memory:
            print("", extremes.memory(rig, arguments.tally), sep="\n", flush=True)
        faults = [fault for target in targets for fault in target.faults()]
    increments = {target.name: target.increments for target in targets}
    if arguments.json:
        cases = [
            {"target": name, "command": command, "pipeline": pipeline, "runs": measured}
            for (name, command, pipeline), measured in runs.items()
        ]
        report = {**facts, "cases": cases, "increments": increments, "faults": faults}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if faults:
        raise BenchError("THE COUNTS ARE WRONG\n" + "\n".join(faults))
    if any(increments.values()):
        sums = ", ".join(f"{name} {count:,}" for name, count in increments.items())
        print(f"\nEvery increment was counted exactly once: {sums}.")


def main():
    # `kill` ends it as Ctrl-C does: through every `with`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        compare(parse_arguments())
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything is stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
