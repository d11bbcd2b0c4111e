"""How much is measured: RANKSIEVE_BENCH_MB megabytes of text of each kind, RANKSIEVE_BENCH_ROWS scored rows.

The text is made up as `ranksieve generate` does.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.synthetic import generate

MEGABYTES = int(os.environ.get("RANKSIEVE_BENCH_MB", "200"))
ROWS = int(os.environ.get("RANKSIEVE_BENCH_ROWS", "1000000"))


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the file of a preset, whole queries one after another; LightGBM's is beside it, without `qid:`."""
    made: dict[str, Path] = {}

    def of(preset: str) -> Path:
        if preset not in made:
            made[preset] = _make(preset, tmp_path_factory.mktemp(preset))
        return made[preset]

    return of


def _make(preset: str, where: Path) -> Path:
    generate.run(preset, where / "set", text_bytes=MEGABYTES * 10**6)
    path = where / "letor.txt"
    with path.open("wb") as whole, path.with_suffix(".noqid").open("wb") as stripped:
        for name in ("train", "vali", "test"):
            part = where / "set" / f"{name}.txt"
            with part.open("rb") as lines:
                while block := lines.readlines(16 << 20):
                    data = b"".join(block)
                    whole.write(data)
                    stripped.write(re.sub(rb" qid:[^ ]+", b"", data))
            part.unlink()
    print(f"\n{preset}: {path.stat().st_size / 1e6:.0f} MB")
    return path
