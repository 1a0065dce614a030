"""The 70b program on disk and off it again: bytes, seconds to save and load, seconds to link."""

import argparse
import tempfile
import time
from pathlib import Path

from measure import machine, peak_gb, show

from compiler.options import CompileOptions
from compiler.pipeline import compile_program
from fabric.rack import load_rack
from lpu import api
from lpu.link.link import link


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="llama-3.1-70b")
    parser.add_argument("--rack", default="lpx")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--tp", type=int, default=8)
    args = parser.parse_args()
    print(machine() + "\n")

    model = api.open_model(args.model, context=[args.context])
    program = compile_program(model.source(), load_rack(args.rack), CompileOptions(tp=args.tp))
    show("peak memory of the compile", peak_gb(), "GB")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        api.save_program(program, Path(folder) / "program")
        saved = time.perf_counter()
        files = sorted(path for path in (Path(folder) / "program").rglob("*") if path.is_file())
        sizes = {path.name: path.stat().st_size for path in files}
        loaded = api.load_program(Path(folder) / "program")
        show("save", saved - start, "s")
        show("load, with its digest checked", time.perf_counter() - saved, "s")
    assert loaded.manifest.digest == program.manifest.digest
    for name, count in sizes.items():
        show(f"  {name}", count / 1e6, "MB", digits=3)
    show("on disk", sum(sizes.values()) / 1e6, "MB", 5)

    start = time.perf_counter()
    columns, loads = program.expand(args.context), program.loads()
    expanded = time.perf_counter()
    link(program.manifest, loads, columns)
    linked = time.perf_counter()
    show("rows", len(columns) / 1e6, "M", digits=3)
    show("expand", expanded - start, "s")
    show("link", linked - expanded, "s")
    show("link, expansion included", linked - start, "s", 2.5)
    show("peak memory", peak_gb(), "GB")
    print(f"digest {program.manifest.digest}")


if __name__ == "__main__":
    main()
