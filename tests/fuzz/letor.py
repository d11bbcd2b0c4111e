"""Coverage-guided fuzzing of the LETOR reader: ``make fuzz SECONDS=600``.

Atheris (libFuzzer) mutates LETOR text and keeps what reaches a new branch of the interpreted kernel or of the
Python around it. Each input is read by the compiled and the interpreted kernel and both are compared with a
plain reference (:mod:`tests.fuzz.oracle`). It begins with ``letor_corpus.txt``, bytes literals that a test
reads back, and keeps what it finds in ``.fuzz/letor``; an input that shows a difference is left beside it.

``python -m tests.fuzz.letor replay`` reads every kept input in all ways that blocks can cut it, in minutes;
``python -m tests.fuzz.letor distil`` prints those that go from line to line as no input of the corpus does.
"""

import ast
import hashlib
import inspect
import random
import re
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from tests.fuzz import interpreted, oracle, reference
from tests.fuzz.reference import Bad

SEEDS = Path(__file__).with_name("letor_corpus.txt")
KEPT = Path(".fuzz/letor")
LONGEST = 600  # bytes: longer inputs take longer and reach no other branch
TOKENS = [
    *(b" ", b"  ", b"\t", b"\v", b"\f", b"\r", b"\n", b"\r\n", b"\n\n", b":", b"#", b"\0", b"\xef\xbb\xbf"),
    *(b"0", b"1", b"2.0", b"30", b"31", b"-1", b"+1", b"1e0", b"0.5 ", b"1.000 ", b"00", b"1_0", b"x"),
    *(b" qid:", b" qid:1", b" qid:q7", b" qid:-0", b" qid:9223372036854775807", b" qid:-9223372036854775809"),
    *(b"1:", b" 2:", b" 3:0.25", b" 9:", b" 10:", b" 01:", b" 0:", b" 99:1 100:", b" 999:0 1000:1 1001:"),
    *(
        b" 257:1",
        b" 65536:1",
        b" 65537:",
        b" 18446744073709551617:1",
        b" 1:1 1:1",
        b" 3:1 2:1",
        b"1:2 2:3 3:4 ",
    ),
    *(
        b"nan",
        b"-nan",
        b"NaN",
        b"inf",
        b"-Infinity",
        b"NULL",
        b"1e999",
        b"1e-400",
        b"0x10",
        b"e",
        b"E+",
        b"e-",
    ),
    *(
        b"docid = ",
        b"#docid=",
        b"# docid",
        b"DocId",
        b"=",
        b"_",
        b"\xc3\xa9",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xf4\x90",
    ),
    *(
        b"12345678",
        b"1234567.12345678",
        b"12345678.1",
        b"9007199254740993",
        b"00000000",
        b"0.00000001",
        b"99999999",
    ),
    *(b"0 qid:1 1:1\n", b"2 qid:10 1:0.5 2:1 3:-7 4:3.25 5:0.125 6:0 #docid = A inc = 1\n"),
    *(b"1797693134862315700" + b"0" * 290, b"." + b"0" * 30, b"9" * 19, b"8.5899345920000005e9"),
]
REPAIRS = {
    "has no query id": b"qid:1",
    "is not a number; labels": b"1",
    "is negative": b"0",
    "is a fraction": b"2",
    "is above 30": b"3",
    "is not a number; write": b"0.5",
    "NULL files": b"nan",
}


def seeds() -> list[bytes]:
    """Return the inputs that are kept with the tests."""
    return [ast.literal_eval(line) for line in SEEDS.read_text(encoding="ascii").splitlines()]


def main() -> None:
    """Fuzz, replay or distil; what follows are options of libFuzzer."""
    what, *options = sys.argv[1:] or ["fuzz"]
    if what == "fuzz":
        _fuzz(options)
    inputs = [path.read_bytes() for path in sorted(KEPT.iterdir())]
    if what == "replay":
        for data in inputs:
            oracle.check(data)
            oracle.check_every_cut(data)
        print(f"{len(inputs)} inputs read as they should, however blocks cut them")
    elif what == "distil":
        print("\n".join(map(repr, distil(inputs))))
    else:
        raise SystemExit("usage: python -m tests.fuzz.letor [fuzz|replay|distil] [option of libFuzzer ...]")


def _fuzz(options: list[str]) -> None:
    """Run libFuzzer, which ends the process."""
    import atheris

    for function in watched():
        atheris.instrument_func(function)
    KEPT.mkdir(parents=True, exist_ok=True)
    for data in seeds():
        (KEPT / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as words:
        words.writelines(map(_entry, TOKENS))
        words.flush()
        fixed = [
            f"-dict={words.name}",
            f"-max_len={LONGEST}",
            "-timeout=60",
            f"-artifact_prefix={KEPT.parent}/",
        ]
        atheris.Setup(
            [sys.argv[0], str(KEPT), *fixed, *options],
            lambda data: oracle.check(data, quick=True),
            custom_mutator=lambda data, size, seed: mutated(data, size, seed, atheris.Mutate),
        )
        atheris.Fuzz()


def _entry(token: bytes) -> str:
    """Return a line of libFuzzer's dictionary, whose words have at most 64 bytes."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in token[:64]) + '"\n'


def watched() -> Iterator[FunctionType]:
    """Yield the functions whose branches guide: the interpreted kernel and the reader around it."""
    from pipeline.dataset import letor, letor_blocks, letor_parse

    for module in (interpreted.module(), letor_blocks, letor_parse, letor):
        yield from _functions(module, module.__name__)


def _functions(owner: ModuleType | type, module: str) -> Iterator[FunctionType]:
    for value in vars(owner).values():
        if isinstance(value, FunctionType):
            function = inspect.unwrap(value)
            if function.__module__ == module:
                yield function
        elif isinstance(value, type) and value.__module__ == module and "_fields" not in vars(value):
            yield from _functions(value, module)


def mutated(data: bytes, size: int, seed: int, anyhow: Callable[[bytes, int], bytes]) -> bytes:
    """Return ``data`` changed as LETOR text is written, or as bytes by ``anyhow``; often put right again.

    Nearly any change breaks a line, and what comes after the first mistake is not read.
    """
    draw = random.Random(seed)
    if draw.random() < 0.4:
        data = anyhow(data, size)
    else:
        for _ in range(draw.choice((1, 1, 2, 4))):
            data = draw.choice((_with_token, _with_number, _without, _with_line, _renumbered))(data, draw)
    return (repaired(data) if draw.random() < 0.6 else data)[:size]


def repaired(data: bytes) -> bytes:
    """Return ``data`` with its first mistakes put right, in the order in which they are reported."""
    for _ in range(12):
        bad = reference.read(data, sentinel=None, head=0)
        if not isinstance(bad, Bad) or bad.line is None or bad.column is None:
            break
        lines = data.removeprefix(reference.BOM).split(b"\n")
        line, at = lines[bad.line - 1], bad.column - 1
        stop = at + len(re.match(rb"[^\s#\x00]*\x00?", line[at:])[0])
        if bad.what in ("query id ", "document id "):
            lines[bad.line - 1] = line[:at] + line[at:].decode(errors="ignore").encode()
        elif bad.what.startswith("expected qid"):
            lines[bad.line - 1] = line[:at] + b" qid:1 " + line[at:]
        else:
            lines[bad.line - 1] = line[:at] + REPAIRS.get(bad.what, b"") + line[stop:]
        data = b"\n".join(lines)
    return data


def _place(data: bytes, draw: random.Random) -> int:
    """Draw a place, most often the beginning or the end of a token."""
    edges = [i for i in range(len(data)) if (data[i] in b" \n:#\t.eE") != (data[i - 1] in b" \n:#\t.eE")]
    return draw.choice(edges) if edges and draw.random() < 0.8 else draw.randint(0, len(data))


def _with_token(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.choice(TOKENS) + data[at:]


def _without(data: bytes, draw: random.Random) -> bytes:
    start, stop = sorted((_place(data, draw), _place(data, draw)))
    return data[:start] + data[stop:]


def _with_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    lines.insert(draw.randint(0, len(lines)), draw.choice(lines))
    return b"\n".join(lines)


def _with_number(data: bytes, draw: random.Random) -> bytes:
    """Put a number in the place of a value, or at the end."""
    at = draw.choice([i + 1 for i, c in enumerate(data) if c == 58] or [len(data)])
    stop = at
    while stop < len(data) and data[stop] not in b" \t\r\n#":
        stop += 1
    return data[:at] + number(draw) + data[stop:]


def _renumbered(data: bytes, draw: random.Random) -> bytes:
    """Number the features of a line from some index on."""
    lines = data.split(b"\n")
    which = draw.randrange(len(lines))
    head, *tokens = lines[which].split(b" ")
    index = draw.choice((1, 1, 1, 5, 95, 250, 996))
    for k, token in enumerate(tokens):
        if not token.startswith(b"qid"):
            tokens[k], index = b"%d:%s" % (index, token.partition(b":")[2]), index + 1
    lines[which] = b" ".join([head, *tokens])
    return b"\n".join(lines)


def number(draw: random.Random) -> bytes:
    """Return the text of a number that is hard to read: halfway of two floats, long, tiny, or spelled oddly."""
    kind = draw.randrange(6)
    if kind == 0:
        text = repr(struct.unpack("d", draw.randbytes(8))[0])
    elif kind == 1:
        text = f"{struct.unpack('f', draw.randbytes(4))[0]:.9g}"
    elif kind == 2:
        text = _halfway(draw)
    elif kind == 3:
        text = f"{draw.randrange(10 ** draw.randint(1, 25))}.{draw.randrange(10 ** draw.randint(1, 12))}"
    elif kind == 4:
        text = f"{draw.randrange(10 ** draw.randint(1, 20))}e{draw.randint(-330, 310)}"
    else:
        text = f"{'0' * draw.randint(0, 20)}{draw.randrange(10**6)}.{'0' * draw.randint(0, 40)}"
    return (draw.choice(("", "", "", "-", "+")) + text.removeprefix("-")).encode()


def _halfway(draw: random.Random) -> str:
    """Return the decimal digits of the middle of two neighbouring float32, cut, whole, or one more digit."""
    bits = draw.randrange(0x00000001, 0x7F000000)
    low, high = (struct.unpack("f", struct.pack("I", b))[0] for b in (bits, bits + 1))
    middle = f"{(low + high) / 2:.{draw.choice((8, 15, 17, 20, 40))}e}"
    mantissa, power = middle.split("e")
    return f"{mantissa}{draw.choice(('', '', '1', '49', '0000001'))}e{power}"


def distil(inputs: list[bytes]) -> list[bytes]:
    """Return few inputs that, beside the corpus, make every jump from line to line that all of them do."""
    reached = {data: _jumps(data) for data in set(inputs)}
    missing, chosen = set().union(*reached.values()).difference(*map(_jumps, seeds())), []
    while missing:
        best = max(reached, key=lambda data: (len(reached[data] & missing), -len(data), data))
        chosen.append(best)
        missing -= reached[best]
    return sorted(chosen, key=lambda data: (len(data), data))


def _jumps(data: bytes) -> set[tuple[Any, int, int]]:
    """Return the pairs of lines of the watched functions that follow each other."""
    codes, found = {function.__code__ for function in watched()}, set()

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code not in codes:
            return None
        before = frame.f_code.co_firstlineno

        def line(frame: Any, event: str, _: Any) -> Any:
            nonlocal before
            if event == "line":
                found.add((frame.f_code, before, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        oracle.check(data, quick=True)
    finally:
        sys.settrace(earlier)
    return found


if __name__ == "__main__":
    main()
