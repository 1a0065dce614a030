"""`lpu`: the command line. Verbs live in the other files of this folder; errors end here, on one line.

Exit codes: 0 ok, 1 a check failed, 2 usage or a bad file, 3 cannot compile, 4 the program broke its schedule,
130 interrupted (143 by SIGTERM, 129 by SIGHUP). An error that is the user's to mend has its `exit_code`; any
other is a bug and keeps its traceback. Nothing heavy is imported before a verb runs.
"""

import errno
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lpu.cli import afd as cli_afd
from lpu.cli import catalogs as cli_list
from lpu.cli import compare as cli_compare
from lpu.cli import convert as cli_convert
from lpu.cli import models as cli_models
from lpu.cli import run as cli_run
from lpu.cli import validate as cli_validate
from lpu.cli.machines import nodes as cli_nodes
from lpu.cli.machines import sweep as cli_sweep
from lpu.cli.programs import deskew as cli_deskew
from lpu.cli.programs import diff as cli_diff
from lpu.cli.programs import energy as cli_energy
from lpu.cli.programs import program as cli_program
from lpu.cli.programs import prove as cli_prove
from lpu.cli.programs import remap as cli_remap
from lpu.cli.programs import spares as cli_spares
from lpu.cli.programs import study as cli_study
from lpu.cli.programs import switch as cli_switch
from lpu.cli.programs import upsets as cli_upsets
from lpu.cli.serving import plan as cli_plan
from lpu.cli.serving import replay as cli_replay
from lpu.cli.serving import serve as cli_serve
from lpu.cli.terminal import TERMINAL, Terminal
from lpu.cli.verb import command, summary
from lpu.kept import keep_compiled
from lpu.outputs.stop import Stopped, install, unstopped
from lpu.outputs.workspace import leave

BROKEN_PIPE = 141
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)  # of a disk
SIGNALLED = 128  # and the number of the signal
INTERRUPTED = SIGNALLED + 2
GARBAGE = 50_000  # objects until Python looks for garbage: at its own 700 a fifth of a compile goes there
VERBS = (
    *cli_program.VERBS,
    *cli_prove.VERBS,
    *cli_remap.VERBS,
    *cli_spares.VERBS,
    *cli_switch.VERBS,
    *cli_upsets.VERBS,
    *cli_deskew.VERBS,
    *cli_run.VERBS,
    *cli_compare.VERBS,
    *cli_diff.VERBS,
    *cli_convert.VERBS,
    *cli_afd.VERBS,
    *cli_replay.VERBS,
    *cli_serve.VERBS,
    *cli_plan.VERBS,
    *cli_energy.VERBS,
    *cli_nodes.VERBS,
    *cli_sweep.VERBS,
    *cli_study.VERBS,
    *cli_validate.VERBS,
    *cli_models.VERBS,
    *cli_list.VERBS,
)


def _version(value: bool) -> bool:
    if value:
        from importlib.metadata import version

        print(f"lpu-emulator {version('lpu-emulator')}")
        raise typer.Exit
    return value


class _Commands(dict[str, Any]):
    """The verbs by name; what is read from it is the command of one, made when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        verb = super().__getitem__(name)
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(name, short_help=summary(verb))(command(verb))
        return typer.main.get_command(app)

    def get(self, name: str, default: Any = None) -> Any:
        """The command of a verb, if there is one of that name."""
        known = name in self
        return self[name] if known else default


class Verbs(TyperGroup):
    """The verbs as they are once extensions are there: one of those may have registered a mode."""

    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.commands = _Commands((verb.__name__.rstrip("_"), verb) for verb in VERBS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that is asked for, after the modules of --extend are imported."""
        from models import extensions

        for module in ctx.params.get("extend") or ():
            extensions.extend(module)
        extensions.load_extensions()
        return super().resolve_command(ctx, args)


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    extend: Annotated[
        list[str] | None,
        typer.Option(
            "--extend", metavar="MODULE", help="Import a module that registers ops, families or modes."
        ),
    ] = None,
) -> None:
    """Compile a model for a rack of SRAM LPUs, cycle by cycle; check, run and certify the program."""


def group() -> Any:
    """All verbs with the options that they have when they are asked for."""
    app = typer.Typer(name="lpu", rich_markup_mode=None, pretty_exceptions_enable=False)
    app.callback(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})(options)
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; gives the exit code."""
    for name in ("stdout", "stderr"):  # closed by the caller, as in `lpu racks >&-`
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    terminal = Terminal()
    TERMINAL.set(terminal)
    if arguments is None:
        install()
        keep_compiled(os.environ)
        gc.set_threshold(GARBAGE)
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        return _ended(terminal, INTERRUPTED, arguments is None)
    except Stopped as told:
        return _ended(terminal, SIGNALLED + told.signal, arguments is None)
    except (BrokenPipeError, SystemExit) as error:
        if not isinstance(error if isinstance(error, OSError) else error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if _is_full(error):  # or Python says so once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = exit_code(error)
        if terminal.debug or code is None:
            raise
        terminal.error(message(error))
        return code


def _ended(terminal: Terminal, code: int, at_once: bool) -> int:
    with unstopped():
        terminal.error("interrupted")
        if at_once:  # threads of XLA may still compile, and crash a Python that winds down
            leave()
            with suppress(OSError):
                sys.stdout.flush()
            os._exit(code)
    return code


def _is_full(error: BaseException) -> bool:
    """Whether stdout took no more: what lpu writes elsewhere names its file."""
    return isinstance(error, OSError) and error.filename is None and error.errno in FULL


def _is_setting(error: BaseException) -> bool:
    """Whether JAX could not be imported for the value of a `JAX_*` variable."""
    said = any(text in str(error) for text in ("for JAX flag", "for environment"))
    return isinstance(error, ValueError) and said and "jax" not in sys.modules


def exit_code(error: BaseException) -> int | None:
    """The exit code of a user's error, one of the system about a path included; None for a bug."""
    if hasattr(error, "format_message") or _is_full(error) or _is_setting(error):
        return 2
    if isinstance(error, OSError) and error.filename is not None:
        return 2
    return getattr(error, "exit_code", None)


def message(error: BaseException) -> str:
    """What the error says, of usage errors with the command that helps."""
    usage: Any = error
    if _is_full(error):
        return f"stdout: cannot be written: {os.strerror(usage.errno)}. What was saved before stays."
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Check the path."
    if _is_setting(error):
        return f"jax: {error}. Unset that variable of the environment."
    if not hasattr(usage, "format_message"):
        return str(error)
    path = usage.ctx.command_path if getattr(usage, "ctx", None) else "lpu"
    text = " ".join(str(usage.format_message()).split())
    return f"usage: {text.rstrip('.')}. See {path} --help."


def _run(arguments: list[str]) -> int:
    try:
        code = group().main(args=arguments or ["--help"], prog_name="lpu", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if code == INTERRUPTED:  # what typer makes of an interrupt
        raise KeyboardInterrupt
    sys.stdout.flush()
    return code if isinstance(code, int) else 0
