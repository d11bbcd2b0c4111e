"""Kernels as machine code in a file: a process that finds it there calls it without numba.

To import numba and load one kernel from numba's own cache takes over a second of CPU time, as much as parsing
400 MB of text. Here numba compiles the entries of a kernel as C functions; what it makes of them is one LLVM
module, which is made to stand alone, assembled, and kept. Later processes load it with llvmlite in 0.1 seconds.

The file's name has the fingerprint of all that the code is made from: the sources, the versions of the
compilers and the processor. A file that is damaged is made anew.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import StorageError
from pipeline.core.files import atomic_write

Function = Callable[..., None]

_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_C_TYPES: Final[Mapping[str, Any]] = {"int64": ctypes.c_int64, "float64": ctypes.c_double}


class Kernel:
    """A module of kernels, whose entries are called with numbers and addresses.

    Threads may share it, and an entry runs without the interpreter's lock.

    Args:
        module: Its name. It imports numba, so it is imported only to be compiled.
        entries: Name of a function of the module -> the types of its arguments, each ``int64``, ``float64``, or
            a NumPy type and ``*`` for the address of such values. It returns nothing and cannot raise.
        sources: Other files that the machine code depends on.
    """

    def __init__(self, module: str, entries: Mapping[str, str], sources: Sequence[str] = ()) -> None:
        self._module, self._entries = module, {name: types.split() for name, types in entries.items()}
        self._sources = [
            Path(__file__),
            Path(__file__).parents[1] / "core" / "compiled.py",
            *map(Path, sources),
        ]
        self._functions: dict[str, Function] = {}
        self._alive: Any = None
        self._lock = threading.Lock()

    def functions(self) -> Mapping[str, Function]:
        """Return the entries, from the file where there is one, else compiled, which takes some ten seconds."""
        with self._lock:
            if not self._functions:
                code = self._read()
                addresses = self._compiled() if code is None else self._loaded(code)
                for name, types in self._entries.items():
                    kinds = [_C_TYPES.get(word, ctypes.c_void_p) for word in types]
                    self._functions[name] = ctypes.CFUNCTYPE(None, *kinds)(addresses[name])
        return self._functions

    def is_kept(self) -> bool:
        """Tell whether nothing has to be compiled: the code is here already, or in a file."""
        return bool(self._functions) or self._read() is not None

    @cached_property
    def _name(self) -> str:
        """The file's name; an LLVM library is loaded for it."""
        import llvmlite.binding as llvm

        found = find_spec(self._module)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(self._module)
        parts = [
            *(file.read_bytes() for file in (Path(found.origin), *self._sources)),
            *(metadata.version(name).encode() for name in ("numba", "llvmlite", "numpy")),
            platform.python_version().encode(),
            f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()} ".encode(),
            llvm.get_host_cpu_features().flatten().encode(),
            repr(self._entries).encode(),
        ]
        fingerprint = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
        return f"{self._module.rpartition('.')[2]}-{fingerprint}.code"

    def _read(self) -> bytes | None:
        for directory in _directories():
            with contextlib.suppress(OSError):
                data = (directory / self._name).read_bytes()
                digest, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
                if hashlib.sha256(code).digest() == digest:
                    return code
        return None

    def _keep(self, code: bytes) -> None:
        """Write the file to the first place where that is possible."""
        for directory in _directories():
            with contextlib.suppress(StorageError):
                with atomic_write(directory / self._name) as [made]:
                    made.write_bytes(hashlib.sha256(code).digest() + code)
                return

    def _loaded(self, code: bytes) -> dict[str, int]:
        import llvmlite.binding as llvm

        _initialize()
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        self._alive = engine  # the code is its memory
        return {name: engine.get_function_address(name) for name in self._entries}

    def _compiled(self) -> dict[str, int]:
        import numba
        from numba import types

        def kind(word: str) -> Any:
            if word[-1] != "*":
                return getattr(types, word)
            return types.CPointer(getattr(types, word[:-1]))  # type: ignore[no-untyped-call]

        module = import_module(self._module)
        entries: dict[str, Any] = {
            name: numba.cfunc(types.void(*map(kind, words)))(getattr(module, name))
            for name, words in self._entries.items()
        }
        code = _assembled(
            {name: (entry.inspect_llvm(), entry.native_name) for name, entry in entries.items()}
        )
        if code is not None:
            self._keep(code)
        self._alive = entries
        return {name: entry.address for name, entry in entries.items()}


def _directories() -> Iterator[Path]:
    """Yield where code may be kept: as numba, where its variable says, beside the package, in the home directory."""
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(named) / "ranksieve"
        return
    yield Path(__file__).with_name("__pycache__")
    with contextlib.suppress(RuntimeError):  # nobody's home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ranksieve"


def _assembled(entries: Mapping[str, tuple[str, str]]) -> bytes | None:
    """Return one object file of the entries, each given by its LLVM module and its name there.

    numba's C functions end in what reports an exception, which ties them to the process. As no entry can raise,
    all of that goes once nothing but the entry itself can be called from outside. None where something is left
    that is not in the module.
    """
    import llvmlite.binding as llvm

    machine, whole = _machine(), llvm.parse_assembly("")
    for name, (text, native) in entries.items():
        module = llvm.parse_assembly(text)
        for value in (*module.functions, *module.global_variables):
            if value.name == native:
                value.name = name
            elif not value.is_declaration:
                value.linkage = "internal"
        whole.link_in(module)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(whole, builder)
    whole.triple = llvm.get_process_triple()
    whole.verify()
    foreign = [
        value.name
        for value in (*whole.functions, *whole.global_variables)
        if value.is_declaration and not value.name.startswith("llvm.")
    ]
    return None if foreign else machine.emit_object(whole)


def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _machine() -> Any:
    """Return what makes code for this processor, to be loaded anywhere in memory."""
    import llvmlite.binding as llvm

    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3,
        reloc="default", codemodel="jitdefault", jit=True,
    )  # fmt: skip
