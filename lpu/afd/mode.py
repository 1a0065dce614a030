"""What a mode is: one way to share the work between GPUs and LPUs, with the options that are its alone."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from lpu.inputs.document import FileError

if TYPE_CHECKING:
    from compiler.program.program import Program
    from lpu.afd.beside import RowSteps, ServedMode
    from lpu.afd.question import Question, Timed
    from lpu.decode.conversation import Conversation
    from lpu.gpu.request import Request


class Mode(ABC):
    """A frozen record whose fields are the options of one mode; nothing heavy is imported to define it.

    name: what --mode calls it. layer: what the parts are of that a report shows beside those of the turns.
    """

    name: ClassVar[str]
    layer: ClassVar[str]

    def words(self) -> str:
        """Its name, and what its times assume."""
        return self.name

    def check(self, request: "Request", *, run: bool) -> None:
        """Raise FileError or OptionError for options that are wrong, or do not go with the request."""
        del request, run  # a mode without options of its own has nothing to refuse

    def changes(self) -> dict[str, Any]:
        """What the mode changes in the model, as `open_model` takes it."""
        return {}

    def others(self) -> dict[str, Any]:
        """The other models that take part, by name, to be opened for the same request."""
        return {}

    @abstractmethod
    def time(self, asked: "Question") -> "Timed":
        """The LPUs' program, compiled and checked, and the request in time with its figures and events."""

    def moves(self, asked: "Question", program: "Program") -> "Mapping[str, Program]":
        """The programs that move data for the LPUs' program, by the names of their folders."""
        return {}

    @abstractmethod
    def converse(
        self, asked: "Question", program: "Program", moves: "Mapping[str, Program]"
    ) -> "Conversation":
        """What GPUs and programs say together, as real math."""

    def steps(self, asked: "Question", program: "Program") -> "RowSteps | None":
        """Of a mode without `beside`: its real math under a server; None: the program takes whole prompts."""
        del asked, program

    def beside(self, asked: "Question") -> "ServedMode | None":
        """The mode under a server; None: a decode program takes each sequence, prefills are those of pd.

        Raises FileError where it cannot be served, CompileError or HazardError.
        """
        del asked
        raise FileError(f"serve: --mode {self.name} is not served. lpu afd --mode {self.name} times it.")
