"""What a person sees of a job as it goes."""

import io

from rich.console import Console

from flows.cli.screen import Watch
from pipeline.run.plan import Event


def test_a_log_is_told_of_a_wait_at_once():
    """No line for a step that has just begun; one, with its name first, for what takes time beside it."""
    out = io.StringIO()
    with Watch(Console(file=out, width=100)) as watch:
        watch(Event("ingest", "start"))
        assert out.getvalue() == ""
        watch(Event("compiling", "wait"))
        assert out.getvalue().split() == ["0", "s", "reading", "compiling,", "ingest"]
        watch(Event("compiling", "ready"))
        assert out.getvalue().count("\n") == 1
