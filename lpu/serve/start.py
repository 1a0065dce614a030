"""`lpu serve`: compile, load, listen, until told to stop; then answers in progress are finished."""

import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from compiler.program.program import Program
from fabric.rack import Rack
from lpu.afd.beside import ServedMode
from lpu.afd.machines import machines
from lpu.afd.mode import Mode
from lpu.afd.modes.pd import Pd
from lpu.afd.question import Question
from lpu.afd.report import PROJECTION
from lpu.folder import Progress, quiet, require_legal
from lpu.inputs.document import FileError
from lpu.inputs.open import Model, open_model
from lpu.keywords import ModelKeywords, model_keywords
from lpu.report.words import label_of
from lpu.serve.modelled import ServedTimes, times_beside
from lpu.serve.options import ServeGpus, ServeOptions
from lpu.traffic.build import question_of
from lpu.traffic.machine import dealt, prefiller, served

Served3 = tuple[Program, ServedTimes, Any]
SEQUENCES = 8  # slots, where nothing else is said
BACKLOG = 2048


def serve(
    model: Model,
    *,
    how: ServeOptions | None = None,
    gpus: ServeGpus | None = None,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    mode: Mode | None = None,
    ready: Callable[[str, Any], None] = lambda address, served: None,
    progress: Progress = quiet,
    **keywords: Unpack[ModelKeywords],
) -> None:
    """Serve a model until SIGTERM or SIGINT. ready: called with the address when clients may come.

    Raises FileError (also for a port that is taken, or a missing extra), CompileError, MachineError.
    """
    need_server()
    how = how or ServeOptions()
    with listening(how) as listener:
        service = service_of(model, how, gpus or ServeGpus(), rack, options, progress, keywords, mode)
        host, port = listener.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}", service)
        run(service, how, listener)


def need_server() -> None:
    """Raise FileError where the server's libraries are not installed."""
    try:
        import prometheus_client
        import starlette
        import uvicorn
    except ImportError as error:
        raise FileError(f"serve: needs {error.name}. pip install 'lpu-emulator[serve]'.") from None
    del prometheus_client, starlette, uvicorn


def service_of(
    model: Model,
    how: ServeOptions,
    gpus: ServeGpus,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
    progress: Progress = quiet,
    keywords: ModelKeywords | None = None,
    mode: Mode | None = None,
) -> Any:
    """The model, compiled, checked and loaded, as a `Service`. mode: `Pd()` if not given."""
    from lpu.serve.service import ServedModel, Service

    mode = mode or Pd()
    given = {"batch": SEQUENCES} | dict(model_keywords("serve", keywords or {})) | mode.changes()
    asked = _asked(model, given, how, gpus, rack, options or CompileOptions(), progress, mode)
    opened = asked.model
    beside = mode.beside(asked)
    if beside is None:
        program, times, engine = _alone(asked, how, gpus, mode)
    else:
        program, times, engine = _divided(asked, how, beside)
    about = ServedModel(
        name=how.name or opened.name,
        model=opened,
        tokenizer=opened.tokenizer(),
        ends=opened.ends(),
        vocab=opened.vocab,
        times=times,
        digest=program.manifest.digest,
        label=PROJECTION if gpus.gpus else label_of(program.manifest.chip.name),
        tokens=how.tokens,
        pace=how.pace,
        queue=how.queue,
        header=how.strip_header,
        mode=mode.name if gpus.gpus else None,
        rounds=beside is not None and beside.round is not None and how.tokens == "real",
    )
    return Service(about, engine)


def _asked(
    model: Model,
    given: dict[str, Any],
    how: ServeOptions,
    gpus: ServeGpus,
    rack: str | Path | Rack,
    options: CompileOptions,
    progress: Progress,
    mode: Mode,
) -> Question:
    """What a mode is asked by a server: requests of half a context each in every slot."""
    opened = open_model(model, **given)
    if len(opened.contexts) > 1:
        raise FileError(
            f"serve: --context has {len(opened.contexts)} buckets, a server has 1. Give the largest."
        )
    longest, run = max(opened.contexts), how.tokens == "real"
    there, lengths = machines(rack, gpus, gpus.gpus, gpus.gpu_tp), (longest // 2, longest)
    trust = bool(given.get("trust"))
    asked = question_of(
        "serve", mode, opened, there, lengths, options, progress=progress, run=run, trust=trust
    )
    for one in (opened, *asked.others.values()) if run else ():
        one.need_weights("serve")
    return asked


def _alone(asked: Question, how: ServeOptions, gpus: ServeGpus, mode: Mode) -> Served3:
    """A program that decodes by itself, and the GPUs that prefill for it, if any."""
    from lpu.serve.engine import BatchEngine, SyntheticEngine, real_engine

    opened, there = asked.model, asked.machines
    program = compile_program(opened.source(), there.rack, asked.options, asked.progress)
    if how.tokens == "real" and program.manifest.waves is not None:
        raise FileError(
            "serve: --objective throughput has no real tokens here. Give --tokens synthetic, or leave it out."
        )
    require_legal(program, None, asked.progress)
    prefill = None
    if gpus.gpus:
        prefill = prefiller(dealt(program, there, program.manifest.longest // 2), program, "none", 1)
    real = how.tokens == "real"
    steps = mode.steps(asked, program) if real else None
    if steps is not None:
        engine: Any = BatchEngine(steps)
    else:
        engine = real_engine(program, opened) if real else SyntheticEngine(opened.vocab)
    return program, ServedTimes(machine=served(program, prefill)), engine


def _divided(asked: Question, how: ServeOptions, beside: ServedMode) -> Served3:
    """A mode in which the GPUs do a part of every step."""
    from lpu.serve.engine import BatchEngine, SyntheticEngine

    if asked.options.objective == "throughput":
        raise FileError("serve: --objective throughput is of programs that decode alone. Leave it out.")
    real = how.tokens == "real"
    engine = BatchEngine(beside.steps()) if real else SyntheticEngine(asked.model.vocab)
    longest, batch = max(asked.model.contexts), asked.request.batch
    return beside.program, times_beside(beside, batch, longest, exact=real), engine


@contextmanager
def listening(how: ServeOptions) -> Generator[socket.socket]:
    """A socket at the address. Raises FileError if it cannot be had."""
    family = socket.AF_INET6 if ":" in how.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((how.host, how.port))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise FileError(
                f"serve: {how.host}:{how.port}: {reason}. Choose another --host or --port."
            ) from None
        listener.listen(BACKLOG)
        yield listener
    finally:
        listener.close()


def run(service: Any, how: ServeOptions, listener: socket.socket) -> None:
    """Answer until a signal; then take no more, and finish what is begun."""
    import uvicorn

    from lpu.serve.http.app import application

    class Draining(uvicorn.Server):
        """Ends well after a signal, instead of dying of it in the end."""

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            every = (signal.SIGINT, signal.SIGTERM)
            before = {one: signal.signal(one, self.handle_exit) for one in every}
            try:
                yield
            finally:
                for one, handler in before.items():
                    signal.signal(one, handler)

    config = uvicorn.Config(
        application(service, how.key),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=how.drain_seconds,
        h11_max_incomplete_event_size=1 << 16,
        http="h11",
        ws="none",
        lifespan="on",
    )
    Draining(config).run(sockets=[listener])
