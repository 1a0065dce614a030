"""`lpu`: the command line. Verbs live in the files `cli_*`; errors end here, on one line.

Exit codes: 0 ok, 1 a check failed, 2 usage or a bad file, 3 cannot compile, 4 the program broke its schedule,
130 interrupted. Nothing heavy is imported before a verb runs.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lpu.cli import afd as cli_afd
from lpu.cli import catalogs as cli_list
from lpu.cli import compare as cli_compare
from lpu.cli import convert as cli_convert
from lpu.cli import program as cli_program
from lpu.cli import run as cli_run
from lpu.cli import validate as cli_validate
from lpu.cli.terminal import TERMINAL, Terminal

BROKEN_PIPE = 141
INTERRUPTED = 130
EXIT_CODES = {
    "lpu.inputs.document.FileError": 2,
    "compiler.program.program.ProgramError": 2,
    "models.sources.quantise.WeightError": 2,
    "models.catalog.UnknownModelError": 2,
    "models.extensions.ExtensionError": 2,
    "fabric.catalog.UnknownRackError": 2,
    "fabric.catalog.UnknownChipError": 2,
    "fabric.catalog.UnknownGpuError": 2,
    "lpu.report.trace.UnknownChipNumberError": 2,
    "compiler.errors.CompileError": 3,
    "lpu.check.findings.HazardError": 4,
    "lpu.run.error.MachineError": 2,
    "lpu.link.error.LinkError": 4,
    "models.contract.formats.NumericsError": 1,
}
"""By full name, so that no module has to be imported to know its errors. Any other error is a bug."""

app = typer.Typer(
    name="lpu",
    help="Compile a model for a rack of SRAM LPUs, cycle by cycle; check, run and certify the program.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_VERBS = (
    *cli_program.VERBS,
    *cli_run.VERBS,
    *cli_compare.VERBS,
    *cli_convert.VERBS,
    *cli_afd.VERBS,
    *cli_validate.VERBS,
    *cli_list.VERBS,
)
for _verb in _VERBS:
    app.command(_verb.__name__.rstrip("_"))(_verb)


def _version(value: bool) -> bool:
    if value:
        from importlib.metadata import version

        print(f"lpu-emulator {version('lpu-emulator')}")
        raise typer.Exit
    return value


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
    extend: Annotated[
        list[str] | None,
        typer.Option("--extend", metavar="MODULE", help="Import a module that registers ops or families."),
    ] = None,
) -> None:
    """Compile a model for a rack of SRAM LPUs, cycle by cycle; check, run and certify the program."""
    from models import extensions

    for module in extend or ():
        extensions.extend(module)
    extensions.load_extensions()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; gives the exit code."""
    for name in ("stdout", "stderr"):  # closed by the caller, as in `lpu racks >&-`
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    terminal = Terminal()
    TERMINAL.set(terminal)
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        terminal.error("interrupted")
        if arguments is None:  # threads of XLA may still compile, and crash a Python that winds down
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        if not isinstance(error if isinstance(error, OSError) else error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        code = exit_code(error)
        if terminal.debug or code is None:
            raise
        terminal.error(message(error))
        return code


def exit_code(error: BaseException) -> int | None:
    """The exit code of a user's error; None for a bug."""
    if hasattr(error, "format_message"):
        return 2
    for kind in type(error).__mro__:
        if (code := EXIT_CODES.get(f"{kind.__module__}.{kind.__qualname__}")) is not None:
            return code
    return None


def message(error: BaseException) -> str:
    """What the error says, of usage errors with the command that helps."""
    usage: Any = error
    if not hasattr(usage, "format_message"):
        return str(error)
    path = usage.ctx.command_path if getattr(usage, "ctx", None) else "lpu"
    text = " ".join(str(usage.format_message()).split())
    return f"usage: {text.rstrip('.')}. See {path} --help."


def _run(arguments: list[str]) -> int:
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(args=arguments or ["--help"], prog_name="lpu", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if code == INTERRUPTED:  # what typer makes of an interrupt
        raise KeyboardInterrupt
    sys.stdout.flush()
    return code if isinstance(code, int) else 0
