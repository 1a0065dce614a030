"""Malformed inputs of every kind of file: each is read or refused, in short lines, with a code, soon.

A case takes a good file, spoils it, and reads it as a verb does. Files that carry a seal are sealed again in
half of the cases, so that what lies behind the seal is reached too.
"""

import atexit
import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import FrameType
from typing import Any

import jax
import numpy as np
from drawn import Draw
from prefixes import BLOCK, binding, filled

from compiler.options import CompileOptions
from fabric.catalog import bridge_spec
from lpu import api
from lpu.cli.app import exit_code, message
from lpu.cli.terminal import shortened
from lpu.compare.point import Point
from lpu.compare.results import POINTS, results
from lpu.decode.prefixes import store
from lpu.gpu.table import read_table
from lpu.inputs.document import FileError
from lpu.inputs.files import read_bridge, read_model, read_rack
from lpu.inputs.text import checked_ids, folder_tokenizer, parse_ids
from lpu.outputs.ours import foreign, sealed_json
from models.sources.checkpoint import open_orbax, save_orbax
from models.sources.huggingface.config import read_config
from models.sources.safetensor_files import open_files
from models.sources.seeded import seeded

SIZE = 10_000
SECONDS, WAITED = 10, 120  # of CPU; and of the wall, where a read blocks or the machine is busy
MODELS = Path(__file__).parents[1] / "models" / "data"
ODD = (
    *(None, True, "", "x" * 300, "\n", "é\x00", -1, 0, 1.5, -0.0, 1e308, 2**31, 2**63, 10**18, 10**30),
    *([], {}, [[]], [0], {"a": 0}, {"": None}, "nan", "NaN", "1e9", "../../x", "/dev/zero", "module:factory"),
)
JUNK = (
    *(b"\x00", b"\xff\xfe", b"{", b"]", b'"', b"\n", b": ", b"- ", b"&a *a", b"9" * 5000),
    b"!!python/object:os.x ",
)
TOKENS = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
TABLE = Path(__file__).parents[2] / "lpu" / "validate" / "cases" / "gpu" / "h200_points.csv"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of input: files of a folder that are spoiled, and how the folder is read."""

    files: tuple[str, ...]
    read: Callable[[Path], object]


def _tensors(folder: Path) -> None:
    for tensor in open_files(folder).values():
        tensor.floats()


def _weights(folder: Path) -> None:
    weights = open_orbax(folder)
    for name in weights.shapes:
        assert weights[name].size


def _results(folder: Path) -> None:
    with results(folder):
        pass


def _prompts(folder: Path) -> None:
    checked_ids(parse_ids((folder / "ids.txt").read_text(errors="surrogateescape")), 259)


def _listed(folder: Path) -> None:
    if said := foreign(folder):
        raise FileError(said)


def _families(folder: Path) -> None:
    for each in sorted(folder.iterdir()):
        read_config(each)


KINDS = {
    "rack": Kind(("rack.yaml",), lambda f: read_rack(f / "rack.yaml")),
    "chip": Kind(("chip.yaml",), lambda f: read_rack(f / "chip.yaml")),
    "bridge": Kind(("bridge.yaml",), lambda f: read_bridge(f / "bridge.yaml")),
    "model": Kind(("model.yaml",), lambda f: read_model(f / "model.yaml")),
    "config": Kind(("config.json",), read_config),
    "families": Kind(("*/config.json",), _families),
    "tensors": Kind(("model.safetensors.index.json", "model-00001-of-00003.safetensors"), _tensors),
    "tokenizer": Kind(("tokenizer.json",), lambda f: folder_tokenizer(f).encode("a b")),
    "program": Kind(("manifest.json", "columns.npz"), api.load_program),
    "list": Kind(("lpu-files.json",), _listed),
    "weights": Kind(("weights.json", "tensors/_METADATA", "tensors/d/*"), _weights),
    "results": Kind((POINTS,), _results),
    "prefix": Kind(("prefix.json", "blocks/d/*"), lambda f: store.load(f, binding(), BLOCK)),
    "prompts": Kind(("ids.txt",), _prompts),
    "table": Kind(("table.csv",), lambda f: read_table(f / "table.csv")),
}
FOLDERS = {"list": "program", "tensors": "qwen"}


@cache
def good() -> Path:
    """A folder of each kind that reads well; of this process."""
    home = Path(mkdtemp(prefix="lpu-malformed-"))
    for kind in ("rack", "chip", "bridge", "model", "config", "tokenizer", "results", "prompts", "table"):
        (home / kind).mkdir()
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    bridge = bridge_spec("spectrum-x")
    source = {"field": "tray.lanes", "confidence": "B", "source": "notes"}
    level = {"name": "tray", "kind": "all-to-all", "size": 4, "lanes": 8, "hop_ns": 350}
    stated = {"name": "quad", "chip": "lp30", "forward_ns": 50, "levels": [level]}
    text = {
        "rack/rack.yaml": stated | {"sources": [source]},
        "chip/chip.yaml": stated | {"chip": {"base": "lp30", "planes": 3, "sources": []}},
        "bridge/bridge.yaml": {name: getattr(bridge, name) for name in ("name", *bridge.numbers())},
        "model/model.yaml": {"model": "llama-tiny", "batch": 2, "context": [16, 32], "weights": "seed:1"},
    }
    for name, value in text.items():
        (home / name).write_text(json.dumps(value, indent=1))
    (home / "tokenizer" / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": TOKENS}))
    (home / "prompts" / "ids.txt").write_text("1,2,3;4,5;256")
    shutil.copy(MODELS / "tiny-llama" / "config.json", home / "config")
    shutil.copytree(MODELS / "tiny-qwen3", home / "qwen")
    for room in ("variants", "families", "latent"):
        for path in sorted((MODELS / room).glob("*/config.json")):
            (home / "families" / path.parent.name).mkdir(parents=True)
            shutil.copy(path, home / "families" / path.parent.name)
    shutil.copy(TABLE, home / "table" / "table.csv")
    made = api.compile("llama-tiny", rack="pair", context=(16,), options=CompileOptions(tp=2))
    api.save_program(made.program, home / "program")
    shapes = {name: jax.ShapeDtypeStruct((4,), np.float32) for name in ("a.gain", "b.gain")}
    save_orbax(home / "weights", seeded(shapes, 1))
    with results(home / "results") as kept:
        for i in range(3):
            kept.keep(str(i), {"model": "m"}, _point(i))
    store.save(home / "prefix", filled(binding(), prompts=1))
    for name, kind in KINDS.items():
        kind.read(home / FOLDERS.get(name, name))
    return home


def _point(seed: int) -> dict[str, Any]:
    return asdict(Point(strategy="contiguous", seed=seed))


def hold_malformed(case: int) -> str:
    """Spoils a file of one kind by the number of the case; "refused" or, if it is still good, "read"."""
    draw, name = Draw(case), tuple(KINDS)[case % len(KINDS)]
    kind = KINDS[name]
    with TemporaryDirectory() as place:
        folder = Path(shutil.copytree(good() / FOLDERS.get(name, name), Path(place) / "x"))
        path = draw.among(*sorted(folder.glob(draw.among(*kind.files))))
        path.write_bytes(spoiled(draw, path.read_bytes()))
        if draw.below(2):
            _seal_again(name, path)
        with _limited():
            return _outcome(kind, folder)


def _outcome(kind: Kind, folder: Path) -> str:
    try:
        kind.read(folder)
    except Exception as error:
        if exit_code(error) not in (2, 3):
            raise
        lines = [shortened(line) for line in message(error).splitlines()]
        assert lines, "no message"
        for line in lines:
            assert line.strip()
            assert len(line) <= 290, line
        return "refused"
    return "read"


@contextmanager
def _limited() -> Generator[None]:
    """A block that may take SECONDS of CPU, or WAITED on the wall."""
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, WAITED))

    def late(number: int, frame: FrameType | None) -> None:
        raise RuntimeError(f"no answer after {SECONDS} s of CPU or {WAITED} s")

    before = [signal.signal(number, late) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def spoiled(draw: Draw, data: bytes) -> bytes:
    """The bytes with a value of JSON exchanged, or a change that knows nothing of what they mean."""
    if draw.below(2):
        try:
            lines = data.splitlines() if data.count(b'\n{"schema"') else [data]
            at = draw.below(len(lines))
            lines[at] = json.dumps(_exchanged(draw, json.loads(lines[at]))).encode()
            return b"\n".join(lines) + b"\n"
        except (ValueError, RecursionError):
            pass
    at, end = sorted((draw.below(len(data) + 1), draw.below(len(data) + 1)))
    near = min(end, at + 1 + draw.below(40))
    return draw.among(
        lambda: data[:at],
        lambda: b"",
        lambda: data[:at] + data[end:],
        lambda: data[:near] + data[at:],
        lambda: data[:at] + data[near:],
        lambda: data[:at] + draw.among(*JUNK) + data[at:],
        lambda: data[:at] + draw.random.bytes(near - at) + data[near:],
        lambda: data[:at] + bytes([(data + b"\0")[at] ^ (1 << draw.below(8))]) + data[at + 1 :],
        lambda: data[:at] + str(draw.among(*ODD)).encode() + data[near:],
        lambda: data + data,
        lambda: draw.among(b"[", b'{"a":', b"- ", b"a: {") * 5000,
        lambda: b"\n".join(reversed(data.splitlines())),
    )()


def _exchanged(draw: Draw, value: Any) -> Any:
    """A JSON value with one part somewhere in it exchanged, taken out or put in."""
    if isinstance(value, dict) and value and draw.below(8):
        key = draw.among(*value)
        change = draw.below(8)
        if change == 0:
            return {name: part for name, part in value.items() if name != key}
        if change == 1:
            return value | {key + "x": value[key]}
        return value | {key: _exchanged(draw, value[key])}
    if isinstance(value, list) and value and draw.below(8):
        at = draw.below(len(value))
        return [*value[:at], *([] if draw.below(6) == 0 else [_exchanged(draw, value[at])]), *value[at + 1 :]]
    return draw.among(*ODD)


def _seal_again(kind: str, path: Path) -> None:
    """The file with the seal that its spoiled content has, if it is still JSON with one."""
    try:
        lines = path.read_bytes().splitlines() if kind == "results" else [path.read_bytes()]
        bodies = [json.loads(line) for line in lines]
        body: Any = bodies[0] if bodies else {}
        if kind == "results":
            for one in bodies:
                one.pop("sha256", None)
                one["sha256"] = _sha(one)
            path.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in bodies))
        elif kind in ("program", "weights") and path.name != "_METADATA":
            body.pop("seal", None)
            path.write_text(json.dumps({"seal": _sha(body), **body}, sort_keys=kind == "program"))
        elif kind in ("prefix", "list"):
            body.pop("sha256", None)
            path.write_bytes(sealed_json(body))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return


def _sha(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
