"""How the house stands: what the four packages are counted by, what the counts may be, and a table of both.

`make house` prints the table, and the places of each count that is above its goal; tests/test_project.py
asserts that no count is above its limit.
"""

import ast
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("lpu", "compiler", "fabric", "models")
# Folders with one file per entry: any number of files.
REGISTRIES = ("strategies", "families", "ops", "vocabulary", "modes", "cases", "instructions")
JSON_MODULES = ("compiler.program.store",)  # where JSON becomes records
LOWERING = ("compiler.lower.ops",)  # where an op may be asked for its name
RECORDS = ("manifest", "kernel", "kernels", "k")  # what a name ends in that holds a record of a program
# Class names that two files use, and why each is right in both.
ALIKE: dict[str, str] = {
    "Step": "a kind of program, and the function of a model that such a program computes: the same step",
    "Vector": "cycles of a pass of vector units: timing is written twice on purpose, compiler and checker",
}
VERBS = ("lpu.api", "lpu.afd.ask", "lpu.afd.ratios")
FILE_LINES, FUNCTION_LINES, FOLDER_FILES, VERB_PARAMETERS, TWICE = 350, 70, 16, 8, 5


@dataclass(frozen=True)
class Limit:
    """What a count may be now, and what it is to be."""

    at_most: int
    goal: int = 0


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, path from the root, and syntax."""

    name: str
    path: str
    lines: int
    tree: ast.Module


@dataclass(frozen=True)
class House:
    """The files of the four packages, and the floors that pyproject.toml gives them, lowest last."""

    modules: tuple[Module, ...]
    floors: tuple[tuple[str, ...], ...]

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """The modules of the house that each module imports, anywhere in its file."""
        names = {module.name for module in self.modules}
        return {module.name: set(_imported(module, names)) - {module.name} for module in self.modules}


def read(root: Path = ROOT) -> House:
    """The house as it lies on disk."""
    paths = [p for package in PACKAGES for p in sorted((root / package).rglob("*.py"))]
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    floors = tuple(tuple(name.strip() for name in layer.split("|")) for layer in layers)
    return House(tuple(_module(path, root) for path in paths), floors)


def _module(path: Path, root: Path) -> Module:
    text, inside = path.read_text(), path.relative_to(root)
    name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
    return Module(name, str(inside), len(text.splitlines()), ast.parse(text, str(path)))


def _imported(module: Module, names: set[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in found:
            while name and name not in names:
                name = name.rpartition(".")[0]
            if name:
                yield name


def long_files(house: House) -> list[str]:
    return [f"{m.path} {m.lines}" for m in house.modules if m.lines > FILE_LINES]


def long_functions(house: House) -> list[str]:
    """Functions and methods of more lines than a screen, signature and docstring included."""
    return [
        f"{m.path}:{node.lineno} {node.name} {lines}"
        for m in house.modules
        for node in ast.walk(m.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]


def full_folders(house: House) -> list[str]:
    folders: dict[Path, int] = {}
    for module in house.modules:
        path = Path(module.path)
        folders[path.parent] = folders.get(path.parent, 0) + 1
    return [f"{f}/ {n}" for f, n in folders.items() if n > FOLDER_FILES and f.name not in REGISTRIES]


def names_twice(house: House) -> list[str]:
    """Public classes of one name in several files, those that ALIKE argues included."""
    places: dict[str, list[str]] = {}
    for module in house.modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module.path)
    return [f"{name}: {', '.join(paths)}" for name, paths in sorted(places.items()) if len(paths) > 1]


def names_not_argued(house: House) -> list[str]:
    return [line for line in names_twice(house) if line.split(":")[0] not in ALIKE]


def _texts(tree: ast.AST, tables: set[str]) -> bool:
    """Whether an expression holds a text, or a table of texts of the module."""
    return any(
        (isinstance(leaf, ast.Constant) and isinstance(leaf.value, str))
        or (isinstance(leaf, ast.Name) and leaf.id in tables)
        for leaf in ast.walk(tree)
    )


def ops_as_strings(house: House) -> list[str]:
    """`node.op == "add"`, `op in NAMES`, `match node.op: case "add"`, outside the lowering rules."""
    out: list[str] = []
    for module in house.modules:
        if module.name.startswith(LOWERING):
            continue
        assigned = [node for node in module.tree.body if isinstance(node, ast.Assign)]
        tables = {
            target.id
            for node in assigned
            for target in node.targets
            if isinstance(target, ast.Name) and _texts(node.value, set())
        }
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
            elif isinstance(node, ast.Match):
                sides = [node.subject, *(case.pattern for case in node.cases)]
            else:
                continue
            if any(_last(side) == "op" for side in sides) and any(_texts(side, tables) for side in sides):
                out.append(f"{module.path}:{node.lineno}")
    return out


def _last(node: ast.AST) -> str:
    """The last word of a name: `op` of node.op and of op."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _key(node: ast.AST) -> ast.expr | None:
    """What is read by a text key: the x of x["a"] and of x.get("a")."""
    if isinstance(node, ast.Subscript):
        target, key = node.value, node.slice
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("get", "pop")
    ):
        target, key = node.func.value, node.args[0] if node.args else node
    else:
        return None
    return target if isinstance(key, ast.Constant) and isinstance(key.value, str) else None


def _holds_record(node: ast.AST, aliases: set[str]) -> bool:
    """Whether an expression is a record of a program or a part of one that was read by a key or index."""
    while True:
        if isinstance(node, ast.Name | ast.Attribute):
            return _last(node) in RECORDS or (isinstance(node, ast.Name) and node.id in aliases)
        inner = _key(node) or (node.value if isinstance(node, ast.Subscript) else None)
        if inner is None:
            return False
        node = inner


def manifest_reads(house: House) -> list[str]:
    """Reads of a manifest or kernel by a text key, by whatever name it goes, outside the JSON modules."""
    out: list[str] = []
    for module in house.modules:
        if module.name in JSON_MODULES:
            continue
        functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
        seen: set[tuple[int, int]] = set()
        for scope in [module.tree, *functions]:
            keyed = [(node, target) for node in ast.walk(scope) if (target := _key(node)) is not None]
            aliases = _aliases(scope) if keyed else set[str]()
            for node, target in keyed:
                if _holds_record(target, aliases):
                    seen.add((getattr(node, "lineno", 0), getattr(node, "end_col_offset", 0)))
        out += [f"{module.path}:{line}" for line, _ in sorted(seen)]
    return out


def _aliases(scope: ast.AST) -> set[str]:
    """Names of a function that hold a record or a part of one: assigned from it, or going over it."""
    aliases: set[str] = set()
    nodes = [node for node in ast.walk(scope) if isinstance(node, ast.Assign | ast.For | ast.comprehension)]
    while True:
        found = set(aliases)
        for node in nodes:
            if isinstance(node, ast.Assign) and _holds_record(node.value, aliases):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
            elif isinstance(node, ast.For | ast.comprehension) and _holds_record(node.iter, aliases):
                found |= {target.id for target in [node.target] if isinstance(target, ast.Name)}
        if found == aliases:
            return aliases
        aliases = found


def _parameters(function: ast.FunctionDef) -> int:
    return len(function.args.posonlyargs) + len(function.args.args) + len(function.args.kwonlyargs)


def wide_verbs(house: House) -> list[str]:
    """Functions of the modules of verbs, and commands of lpu/cli/, that take more than VERB_PARAMETERS."""
    return [
        f"{m.path}:{node.lineno} {node.name} {_parameters(node)}"
        for m in house.modules
        for node in ast.walk(m.tree)
        if isinstance(node, ast.FunctionDef)
        and (m.name in VERBS or (m.name.startswith("lpu.cli.") and bool(node.decorator_list)))
        and _parameters(node) > VERB_PARAMETERS
    ]


def circles(house: House) -> list[str]:
    """Groups of modules that import one another, however far around."""
    reach: dict[str, set[str]] = {}
    for start in house.imports:
        found, todo = set[str](), [start]
        while todo:
            fresh = house.imports[todo.pop()] - found
            found |= fresh
            todo += fresh
        reach[start] = found
    groups = {tuple(sorted(n for n in reach[a] if a in reach[n])) for a in reach if a in reach[a]}
    return [" <-> ".join(group) for group in sorted(groups)]


def upward_imports(house: House) -> list[str]:
    """Imports of a higher floor, or of a neighbour on the same one."""

    def room(name: str) -> tuple[int, str] | None:
        places = [
            (len(r), i, r)
            for i, row in enumerate(house.floors)
            for r in row
            if f"{name}.".startswith(f"{r}.")
        ]
        return max(places)[1:] if places else None

    out: list[str] = []
    for name, others in house.imports.items():
        for other in sorted(others):
            here, there = room(name), room(other)
            if here and there and here[1] != there[1] and there[0] <= here[0]:
                out.append(f"{name} -> {other}")
    return out


def rooms_without_tests(house: House) -> list[str]:
    """Folders of the packages that tests/ does not have, and folders of tests/ whose room is gone."""
    rooms = {str(Path(m.path).parent) for m in house.modules if not m.path.endswith("__init__.py")}
    rooms = {room for room in rooms if Path(room).name not in REGISTRIES}
    outer = {room for room in rooms if len(Path(room).parts) <= 2}
    tests = {str(p.parent.relative_to(ROOT / "tests")) for p in (ROOT / "tests").rglob("test_*.py")}
    tests = {folder for folder in tests if folder.split("/")[0] in PACKAGES}
    return [f"{room}/ has no tests" for room in sorted(outer - tests)] + [
        f"tests/{folder}/ has no room"
        for folder in sorted(tests - rooms)
        if Path(folder).name not in REGISTRIES
    ]


COUNTS: dict[str, tuple[Callable[[House], list[str]], Limit]] = {
    f"files over {FILE_LINES} lines": (long_files, Limit(0)),
    f"functions over {FUNCTION_LINES} lines": (long_functions, Limit(0)),
    f"folders of more than {FOLDER_FILES} files": (full_folders, Limit(0)),
    "class names used twice": (names_twice, Limit(TWICE, TWICE)),
    "class names used twice without an argument": (names_not_argued, Limit(0)),
    "op names compared as strings outside lowering": (ops_as_strings, Limit(0)),
    "reads of a manifest or kernel by string": (manifest_reads, Limit(0)),
    f"verbs of more than {VERB_PARAMETERS} parameters": (wide_verbs, Limit(0)),
    "import circles": (circles, Limit(0)),
    "upward imports": (upward_imports, Limit(0)),
    "rooms whose tests lie elsewhere": (rooms_without_tests, Limit(0)),
}


def main() -> None:
    house = read()
    for name, (count, limit) in COUNTS.items():
        places = count(house)
        print(f"{len(places):>5}  {name} (at most {limit.at_most}, goal {limit.goal})")
        if len(places) > limit.goal:
            print("\n".join(f"         {place}" for place in places[: None if "-v" in sys.argv else 6]))
    for package in PACKAGES:
        inside = [m.lines for m in house.modules if m.path.startswith(f"{package}/")]
        print(f"{sum(inside):>5}  lines in {package}/, {len(inside)} files")


if __name__ == "__main__":
    main()
