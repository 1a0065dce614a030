"""The same run in another process: other threads, another hash seed. It goes through `lpu run --json`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from compiler.options import AUTO, CompileOptions
from lpu.inputs.document import FileError
from lpu.inputs.files import ModelFile

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
HASH_SEEDS = "1", "2"  # Python's own order of sets, which nothing may depend on


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Digests printed by the other process; `reason` is set if there is nothing to compare."""

    program_sha256: str = ""
    logits_sha256: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One run in another process: its command, changes of its environment, and the CPUs it may use."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict[str, str])
    cpus: int = 0
    reason: str = ""

    def run(self, corrupt: bool = False) -> Found:
        """Run it to its end. `corrupt` flips one bit of one weight there, for tests."""
        if self.reason:
            return Found(reason=self.reason)
        command = [*self.command, *(["--corrupt"] if corrupt else [])]
        done = subprocess.run(
            [*_pinned(self.cpus), *command],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return Found(program_sha256="none", logits_sha256=f"exit {done.returncode}: {last}")
        body = json.loads(done.stdout)
        return Found(program_sha256=body["program_sha256"], logits_sha256=body["logits_sha256"])


def children(
    file: ModelFile | None,
    rack: str | None,
    options: CompileOptions,
    prompts: Sequence[Sequence[int]],
    count: int,
    pythons: Sequence[str] = (),
    stream: bool | None = None,
) -> list[Child]:
    """One thread and two, each with a hash seed, other interpreters; with a reason if one cannot run."""
    reason = "" if file and rack else "a Python object has no name that another process could open it by"
    command = _command(file, rack, options, prompts, count) if file and rack else ()
    if stream is not None:
        command = (*command, "--stream" if stream else "--no-stream")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pinned = "" if shutil.which("taskset") else "no taskset here"
    two = reason or pinned or ("" if cpus > 1 else "one CPU here")
    flags = f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()
    return [
        Child(
            name="one thread, hash seed 1",
            command=command,
            environment={"XLA_FLAGS": flags, "PYTHONHASHSEED": HASH_SEEDS[0]},
            cpus=1,
            reason=reason,
        ),
        Child(
            name="two threads, hash seed 2",
            command=command,
            environment={"PYTHONHASHSEED": HASH_SEEDS[1]},
            cpus=2,
            reason=two,
        ),
        *(Child(name=described(one), command=(one, *command[1:]), reason=reason) for one in pythons),
    ]


def described(python: str) -> str:
    """The version of another interpreter and of its JAX. Raises FileError if it cannot be used."""
    code = (
        "import importlib.metadata as m, platform; m.version('lpu-emulator');"
        "print('Python', platform.python_version() + ', jax', m.version('jax'))"
    )
    try:
        done = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise FileError(
            f"--python {python}: is no Python with lpu-emulator installed ({type(error).__name__}). "
            "Give the python of an environment made with pip install lpu-emulator."
        ) from error
    return done.stdout.strip()


def _command(
    file: ModelFile, rack: str, options: CompileOptions, prompts: Sequence[Sequence[int]], count: int
) -> tuple[str, ...]:
    """`lpu run` of the same model, with all options on the command line."""
    words = [sys.executable, "-P", "-m", "lpu", "run", file.model, "--json", "--no-check", "--ignore-eos"]
    words += ["--rack", rack, "--kv", file.kv, "--batch", str(file.batch)]
    words += [] if file.weights is None else ["--weights", file.weights]
    words += ["--context", ",".join(map(str, file.context)), "--tokens", str(count)]
    words += ["--prompt-ids", ";".join(",".join(map(str, prompt)) for prompt in prompts)]
    words += ["--layout", options.layout, "--placement", options.placement, "--seed", str(options.seed)]
    words += ["--experts", options.experts]
    kept = "auto" if options.spill == AUTO else options.spill
    for name, value in (
        ("--tp", options.tp),
        ("--pp", options.pp),
        ("--cp", options.cp),
        ("--spill", kept),
        ("--step-limit", options.step_limit),
        ("--cold", options.cold),
    ):
        words += [] if value is None else [name, str(value)]
    return tuple(words)


def _pinned(cpus: int) -> list[str]:
    """`taskset` to the first `cpus` CPUs of this process; empty without taskset, or if `cpus` is 0."""
    if not cpus or not shutil.which("taskset"):
        return []
    allowed = sorted(os.sched_getaffinity(0))[:cpus]
    return ["taskset", "-c", ",".join(map(str, allowed))]
