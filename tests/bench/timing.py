"""Measure programs side by side: whole processes, interleaved, medians and ratios."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass


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


def run(program: str, arguments: list[str]) -> Cost:
    """Run a Python program in a process of its own and measure it from outside."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program + _PEAK, *arguments], stdout=subprocess.PIPE, text=True
    )
    if process.stdout is None:
        raise RuntimeError("no output to read")
    with process.stdout as stream:
        output = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {program[:200]}")
    wall = time.perf_counter() - began
    return Cost(usage.ru_utime + usage.ru_stime, wall, int(output.split()[-1]) // 1024)


def compare(programs: Mapping[str, str], arguments: list[str], *, rounds: int = 3) -> dict[str, Cost]:
    """Run every program in turn, ``rounds`` times after a warm-up; returns medians and prints the table.

    The first program is ours; ratios are to it.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            cost = run(program, arguments)
            if number:
                costs[name].append(cost)
    medians = {
        name: Cost(*(statistics.median(values) for values in zip(*(_figures(c) for c in found), strict=True)))
        for name, found in costs.items()
    }
    show(medians)
    return medians


def _figures(cost: Cost) -> tuple[float, float, int]:
    return cost.cpu, cost.wall, cost.memory


def show(medians: Mapping[str, Cost]) -> None:
    """Print the table."""
    ours = next(iter(medians.values()))
    print(f"\n{'':44} {'CPU s':>8} {'ratio':>7} {'wall s':>8} {'ratio':>7} {'peak MB':>8}")
    for name, cost in medians.items():
        ratios = f"{cost.cpu / ours.cpu:7.2f} {cost.wall:8.2f} {cost.wall / ours.wall:7.2f}"
        print(f"{name:44} {cost.cpu:8.2f} {ratios} {cost.memory:8.0f}")
