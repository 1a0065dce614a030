"""A verb on the command line: its options are the fields of the records that it takes, written once there.

A parameter of a verb is a frozen record whose fields are annotated with `Option`, or one value annotated so
itself. `Only` takes some fields of a record, `OneOf` one of several. Every verb has --json and --debug too.
The help of a verb is its docstring: what it does, then the lines below `Examples:`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from inspect import Parameter, Signature, cleandoc, signature
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import typer

from compiler.errors import OptionError
from compiler.options import Option
from lpu.cli.terminal import TERMINAL


class Only(tuple[str, ...]):
    """Of a parameter: these fields of its record; the others stay as they are by default."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """Of a parameter: one of `records`, named by the option; an option that only others have is refused."""

    option: Option
    records: Mapping[str, type]
    default: str


class Given(frozenset[str]):
    """Of a parameter: the names of the options that the user wrote, whatever their values."""

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raise OptionError for the first of the named options that was given."""
        for name in names:
            if name in self:
                raise OptionError("options", f"--{name.replace('_', '-')}", why, "Leave it out.")


class Field(NamedTuple):
    """A field of a record, or a single value, that the command line offers."""

    name: str
    kind: Any
    option: Option
    default: Any = MISSING

    @property
    def flag(self) -> str:
        """What messages call it: the last of its flags is the long one."""
        return self.option.flags.split()[-1].split("/")[0]


Values = Mapping[str, Any]
EXAMPLES = "Examples:"
NO_DEFAULT = "none"
UNWRAPPED = "\b\n"  # before a paragraph whose lines the help keeps
WORDS = {int: "N", float: "X", str: "TEXT"}  # what the help calls a value that has no better name


class _Part(NamedTuple):
    """What a parameter of a verb is made from: fields, and how it comes of their values."""

    fields: tuple[Field, ...]
    make: Callable[[Values, Given], Any]


def command(verb: Callable[..., None]) -> Callable[..., None]:
    """The function that typer calls for a verb: its parameters are the options, it hands over the records."""
    parts = parts_of(verb)

    def call(invoked: Any, **values: Any) -> None:
        given = Given(name for name in values if _is_given(invoked, name))
        verb(**{name: part.make(values, given) for name, part in parts.items()})

    context = Parameter("invoked", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    shown = [_parameter(field) for part in parts.values() for field in part.fields]
    made: Any = call
    made.__signature__, made.__annotations__ = Signature([context, *shown, *EVERYWHERE]), {}
    made.__doc__ = "\n\n".join(
        UNWRAPPED + part if part.startswith(EXAMPLES) else part for part in paragraphs(verb)
    )
    return made


def paragraphs(verb: Callable[..., None]) -> list[str]:
    """The parts of a verb's docstring: the first says what it does, one may be examples."""
    return cleandoc(verb.__doc__ or "").split("\n\n")


def summary(verb: Callable[..., None]) -> str:
    """What a verb does, on one line."""
    return " ".join(paragraphs(verb)[0].split())


def examples(verb: Callable[..., None]) -> list[str]:
    """The command lines below `Examples:` of a verb."""
    (part,) = [part for part in paragraphs(verb) if part.startswith(EXAMPLES)]
    return [line.strip() for line in part.splitlines()[1:]]


def parts_of(verb: Callable[..., None]) -> dict[str, _Part]:
    """By the name of each parameter of a verb, what it is made from."""
    return {name: _part(one) for name, one in signature(verb).parameters.items()}


def flags(verb: Callable[..., None]) -> set[str]:
    """What can be written after a verb, but for its arguments and what every verb has."""
    every = [field for part in parts_of(verb).values() for field in part.fields]
    return {flag for field in every for flag in field.option.flags.replace("/", " ").split()}


def options_of(record: Any) -> tuple[Field, ...]:
    """The fields of a record that are options, in their order."""
    return tuple(
        _field(one.name, one.type, one.default) for one in fields(record) if get_origin(one.type) is Annotated
    )


def _field(name: str, annotation: Any, default: Any) -> Field:
    kind, *marks = get_args(annotation)
    (option,) = (mark for mark in marks if isinstance(mark, Option))
    return Field(name, kind, option, default)


def _part(parameter: Parameter) -> _Part:
    kind: Any = parameter.annotation
    marks: Sequence[Any] = ()
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
    if kind is Given:
        return _Part((), lambda values, given: given)
    if any(isinstance(mark, Option) for mark in marks):
        default = MISSING if parameter.default is Parameter.empty else parameter.default
        field = _field(parameter.name, parameter.annotation, default)
        return _Part((field,), lambda values, given: _taken(values, (field,)).get(field.name, default))
    for mark in marks:
        if isinstance(mark, OneOf):
            return _one_of(parameter.name, mark)
    only = [name for mark in marks if isinstance(mark, Only) for name in mark]
    every = tuple(field for field in options_of(kind) if not only or field.name in only)
    return _Part(every, lambda values, given: kind(**_taken(values, every)))


def _one_of(name: str, these: OneOf) -> _Part:
    owned = {key: options_of(record) for key, record in these.records.items()}
    every = {field.name: field for own in owned.values() for field in own}
    owners = {one: [key for key, own in owned.items() if one in {f.name for f in own}] for one in every}

    def make(values: Values, given: Given) -> Any:
        chosen: str = values[name]
        for other, field in every.items():
            if other in given and chosen not in owners[other]:
                reason = f"means nothing in {name} {chosen}"
                remedy = f"Use {these.option.flags} {owners[other][0]}."
                raise OptionError("options", field.flag, reason, remedy)
        return these.records[chosen](**_taken(values, owned[chosen]))

    choice = Field(name, str, replace(these.option, choices=tuple(these.records)), these.default)
    headed = [
        field._replace(
            option=replace(field.option, help=f"{', '.join(owners[field.name])}: {field.option.help}")
        )
        for field in every.values()
    ]
    return _Part((choice, *headed), make)


def _taken(values: Values, every: Sequence[Field]) -> dict[str, Any]:
    """The values of fields as their record has them; what is not given is left to its default."""
    found = {field.name: values[field.name] for field in every if values[field.name] is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _is_given(invoked: Any, name: str) -> bool:
    """Whether the user wrote the option, by the context of the call."""
    source = invoked.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _parameter(field: Field) -> Parameter:
    """The parameter that typer reads: kind, default, and how both are shown."""
    option, default = field.option, field.default
    kind = str if option.parse is not None else _plain(field.kind)
    choices = option.choices or (get_args(field.kind) if get_origin(field.kind) is Literal else ())
    about: dict[str, Any] = {"help": option.help, "hidden": option.hidden}
    about["metavar"] = option.metavar or "|".join(choices) or WORDS.get((get_args(kind) or (kind,))[0])
    if choices:
        about["callback"] = _checked(choices)
    if choices or option.names:
        about["autocompletion"] = _completed(option.names or (lambda: choices))
    about["show_default"] = option.shown or (NO_DEFAULT if default in (None, ()) else True)
    if not option.flags.startswith("-"):
        about["metavar"] = option.flags
        info: Any = typer.Argument(**about)
    else:
        about["min"] = option.least
        if option.parse is not None:
            about["parser"] = _parsed(option.parse)
        if isinstance(default, tuple):  # typer would want it in words
            about["show_default"] = option.shown or ",".join(map(str, default)) or NO_DEFAULT
            default = None
        info = typer.Option(*option.flags.split(), **about)
    if default is None:
        kind |= None
    start = Parameter.empty if default is MISSING else default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=start, annotation=Annotated[kind, info])


def _plain(kind: Any) -> Any:
    """The kind of value that typer is to read: without None, a word wherever several kinds will do."""
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        return _plain(kinds[0]) if len(kinds) == 1 else str
    if get_origin(kind) is tuple:
        return list[get_args(kind)[0]]
    return str if kind is Any or get_origin(kind) is Literal else kind


def _checked(choices: Sequence[str]) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(choices)}")
        return value

    return check


def _completed(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def matching(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return matching


def _parsed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def value(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return value


def _set_json(value: bool) -> bool:
    TERMINAL.get().json |= value
    return value


def _set_debug(value: bool) -> bool:
    TERMINAL.get().debug |= value
    return value


EVERYWHERE = tuple(
    Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option(f"--{name}", help=text, callback=note, is_eager=True)],
    )
    for name, text, note in (
        ("json", "One JSON object on stdout.", _set_json),
        ("debug", "Tracebacks of errors.", _set_debug),
    )
)
"""What every verb has."""
