"""Measure programs side by side: whole processes, interleaved, medians and ratios."""

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A Python program and the package it needs; where that is not installed it is left out."""

    code: str
    needs: str = "pipeline"


@dataclass(frozen=True)
class Cost:
    """What one process cost: CPU seconds, wall seconds, peak resident memory in MB."""

    cpu: float
    wall: float
    memory: int


# The system's own figure would count the memory this process had when it started the other.
_PEAK = """
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def run(program: Program, arguments: list[str]) -> Cost:
    """Run a Python program in a process of its own and measure it from outside."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program.code + _PEAK, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    if process.stdout is None:
        raise RuntimeError("no output to read")
    with process.stdout as stream:
        output = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {program.code[:300]}")
    wall = time.perf_counter() - began
    return Cost(usage.ru_utime + usage.ru_stime, wall, int(output.split()[-1]) // 1024)


def compare(
    title: str, programs: Mapping[str, Program], arguments: list[str], *, rounds: int = 1
) -> dict[str, Cost]:
    """Run every program in turn, ``rounds`` times; returns medians and prints the table.

    The first program is ours, and runs once before so that compiling is not in its figures; ratios are to it.
    """
    there = {name: p for name, p in programs.items() if importlib.util.find_spec(p.needs) is not None}
    run(next(iter(there.values())), arguments)
    costs: dict[str, list[Cost]] = {name: [] for name in there}
    for _ in range(rounds):
        for name, program in there.items():
            costs[name].append(run(program, arguments))
    medians = {
        name: Cost(*(statistics.median(values) for values in zip(*(_figures(c) for c in found), strict=True)))
        for name, found in costs.items()
    }
    show(title, medians)
    for name in programs.keys() - there.keys():
        print(f"{name:44} not installed: {programs[name].needs}")
    return medians


def _figures(cost: Cost) -> tuple[float, float, int]:
    return cost.cpu, cost.wall, cost.memory


def show(title: str, medians: Mapping[str, Cost]) -> None:
    """Print the table."""
    ours = next(iter(medians.values()))
    print(f"\n{title:44} {'CPU s':>8} {'ratio':>7} {'wall s':>8} {'ratio':>7} {'peak MB':>8}")
    for name, cost in medians.items():
        ratios = f"{cost.cpu / ours.cpu:7.2f} {cost.wall:8.2f} {cost.wall / ours.wall:7.2f}"
        print(f"{name:44} {cost.cpu:8.2f} {ratios} {cost.memory:8.0f}", flush=True)
