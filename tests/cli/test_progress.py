"""What a person sees of a run under way."""

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from flows.cli.progress import ProgressDisplay, follow
from pipeline.run.events import Event, EventFile


def terminal(width: int) -> tuple[io.StringIO, Console]:
    """A terminal of that width, and what is written to it."""
    out = io.StringIO()
    return out, Console(file=out, width=width, force_terminal=True, color_system=None)


def last_frame(text: str) -> str:
    """What was on the line when it was last drawn, without control codes."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", text)
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()][-1]


def test_a_log_is_told_of_a_wait_at_once() -> None:
    """No line for a step that has just begun; one, with its name first, for what takes time beside it."""
    out = io.StringIO()
    with ProgressDisplay(Console(file=out, width=100)) as display:
        display(Event("ingest", "start"))
        assert out.getvalue() == ""
        display(Event("compiling", "wait"))
        assert out.getvalue().split() == ["0", "s", "reading", "compiling,", "ingest"]
        display(Event("compiling", "ready"))
        assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("width", [80, 100, 140])
def test_work_done_is_shown_in_one_line(width: int) -> None:
    """Of work of 400 row-trees, 100 done by a finished step and 50 by one under way: 38 %, one ranker of two."""
    out, console = terminal(width)
    with ProgressDisplay(console, reading=1000) as display:
        display(Event("ingest", "start"))
        display(Event("ingest", "advance", 500))
        display._bars.refresh()
        assert "reading" in last_frame(out.getvalue())
        assert "50 %" in last_frame(out.getvalue())
        display(Event("ingest", "done"))
        display(Event("training", "ahead", 400, rankers=2))
        display(Event("model/all", "start", 300))
        display(Event("model/top-20", "start", 100))
        display(Event("model/top-20", "done", 100))
        display(Event("model/all", "advance", 50))
        display._bars.refresh()
        frame = last_frame(out.getvalue())
    assert len(frame.rstrip()) <= width
    assert re.match(r"training .* 38 % 1/2", frame), frame
    assert "left" in frame or width < 100


def test_events_cross_processes_by_a_file(tmp_path: Path) -> None:
    """What is appended is shown, but not what an earlier run left; half a line waits for its other half."""
    file, out = tmp_path / "events", io.StringIO()
    EventFile(file)(Event("old", "wait"))
    time.sleep(0.01)
    display = ProgressDisplay(Console(file=out, width=100))
    with follow(file, display):
        with file.open("a") as stream:
            stream.write('{"step": "ne')
            stream.flush()
            time.sleep(0.25)
            assert out.getvalue() == ""
            stream.write(f'w", "state": "wait", "amount": 0.0, "rankers": 0, "time": {time.time()}}}\n')
        deadline = time.monotonic() + 20
        while "new" not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "new" in out.getvalue()
    assert "old" not in out.getvalue()


def test_a_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """A run without anyone who looks does the same work."""
    EventFile(tmp_path / "nowhere" / "events")(Event("ingest", "start"))
    with EventFile(tmp_path / "events").kept():
        EventFile(tmp_path / "events")(Event("ingest", "start"))
        assert (tmp_path / "events").is_file()
    assert not (tmp_path / "events").exists()
