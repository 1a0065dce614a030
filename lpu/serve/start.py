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
from lpu.afd.machines import machines
from lpu.afd.report import PROJECTION
from lpu.folder import Progress, quiet, require_legal
from lpu.inputs.document import FileError
from lpu.inputs.files import read_rack
from lpu.inputs.model import OpenModel
from lpu.inputs.open import Model, open_model
from lpu.keywords import ModelKeywords, model_keywords
from lpu.report.words import label_of
from lpu.serve.options import ServeGpus, ServeOptions
from lpu.traffic.machine import dealt, prefiller, served

SEQUENCES = 8  # slots, where nothing else is said
BACKLOG = 2048


def serve(
    model: Model,
    *,
    how: ServeOptions | None = None,
    gpus: ServeGpus | None = None,
    rack: str | Path | Rack = "lpx",
    options: CompileOptions | None = None,
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
        service = service_of(model, how, gpus or ServeGpus(), rack, options, progress, keywords)
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
) -> Any:
    """The model, compiled, checked and loaded, as a `Service`."""
    from lpu.serve.engine import SyntheticEngine, real_engine
    from lpu.serve.service import ServedModel, Service

    given: dict[str, Any] = {"batch": SEQUENCES} | dict(model_keywords("serve", keywords or {}))
    opened = open_model(model, **given)
    if len(opened.contexts) > 1:
        raise FileError(
            f"serve: --context has {len(opened.contexts)} buckets, a server has 1. Give the largest."
        )
    if how.tokens == "real":
        opened.need_weights("serve")
    machine = rack if isinstance(rack, Rack) else read_rack(rack)
    program = compile_program(opened.source(), machine, options or CompileOptions(), progress)
    if how.tokens == "real" and program.manifest.waves is not None:
        raise FileError(
            "serve: --objective throughput has no real tokens here. Give --tokens synthetic, or leave it out."
        )
    require_legal(program, None, progress)
    about = ServedModel(
        name=how.name or opened.name,
        model=opened,
        tokenizer=opened.tokenizer(),
        ends=opened.ends(),
        vocab=opened.vocab,
        machine=served(program, _prefiller(program, gpus, machine)),
        digest=program.manifest.digest,
        label=PROJECTION if gpus.gpus else label_of(program.manifest.chip.name),
        tokens=how.tokens,
        pace=how.pace,
        queue=how.queue,
    )
    return Service(about, _engine(program, opened, how, SyntheticEngine, real_engine))


def _engine(program: Program, opened: OpenModel, how: ServeOptions, synthetic: Any, real: Any) -> Any:
    return synthetic(opened.vocab) if how.tokens == "synthetic" else real(program, opened)


def _prefiller(program: Program, gpus: ServeGpus, rack: Rack) -> Any:
    if not gpus.gpus:
        return None
    there = machines(rack, gpus, gpus.gpus, gpus.gpu_tp)
    return prefiller(dealt(program, there, program.manifest.longest // 2), program, "none", 1)


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
