"""Writes docs/api.md from the docstrings of lpu/api.py and of what it hands on: `make docs`."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
HEAD = """# The API

What a script calls: the verbs of the command line as functions, and the records that they take and give. Made
from the docstrings by `make docs`; edit those, not this page.
"""
Definition = ast.FunctionDef | ast.ClassDef


def parse(module: str) -> ast.Module:
    """The syntax of a module of this repository."""
    return ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())


def public(module: str) -> Iterator[Definition]:
    """What a module offers: its public functions and classes, and what it imports `as` the same name."""
    for node in parse(module).body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {alias.name for alias in node.names if alias.asname == alias.name}
            yield from (found for found in public(node.module) if found.name in names) if names else ()


def signature(node: ast.FunctionDef) -> str:
    """The call as a person would write it, a parameter to a line if it is long."""
    given, returns = parameters(node.args), ast.unparse(node.returns).strip("'") if node.returns else "None"
    line = f"def {node.name}({', '.join(given)}) -> {returns}: ..."
    if len(line) <= 110:
        return line
    lines = "".join(f"    {parameter},\n" for parameter in given)
    return f"def {node.name}(\n{lines}) -> {returns}: ..."


def parameters(arguments: ast.arguments) -> list[str]:
    """The parameters as text, with a star where only names are taken."""
    none: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
    named = [(arguments.args, none + arguments.defaults), (arguments.kwonlyargs, arguments.kw_defaults)]
    plain, keyed = (
        [
            ast.unparse(name) + (f" = {ast.unparse(value)}" if value is not None else "")
            for name, value in zip(names, values, strict=True)
        ]
        for names, values in named
    )
    more = [f"**{ast.unparse(arguments.kwarg)}"] if arguments.kwarg else []
    return [text.replace("'", '"') for text in (*plain, *(["*", *keyed] if keyed else []), *more)]


def section(node: Definition) -> str:
    """The part of the page on one function or class."""
    text = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        return f"### {node.name}\n\n```python\n{signature(node)}\n```\n\n{text}\n"
    fields = [
        f"{item.target.id}: {ast.unparse(kind(item.annotation))}"
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    methods = [
        item for item in node.body if isinstance(item, ast.FunctionDef) and not item.name.startswith("_")
    ]
    lines = [f"{item.name}: {(ast.get_docstring(item) or '').splitlines()[0]}" for item in methods]
    code = "```python\n" + "\n".join(fields) + "\n```\n\n" if fields else ""
    return f"### {node.name}\n\n{text}\n\n{code}" + "".join(f"- {line}\n" for line in lines)


def kind(annotation: ast.expr) -> ast.expr:
    """The type that is annotated, without what the command line makes of it."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        return annotation.slice.elts[0]
    return annotation


def page() -> str:
    """The whole page."""
    found = list(public("lpu.api"))
    functions = [node for node in found if isinstance(node, ast.FunctionDef)]
    records = [node for node in found if isinstance(node, ast.ClassDef)]
    parts = [HEAD, "## Functions\n", *map(section, functions), "## Records\n", *map(section, records)]
    return "\n".join(part.rstrip() + "\n" for part in parts)


if __name__ == "__main__":
    PAGE.write_text(page())
