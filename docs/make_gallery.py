"""Writes the pages of docs/gallery/ from programs that it compiles: `make docs`."""

from pathlib import Path

from lpu import api

FOLDER = Path(__file__).parent / "gallery"


def main() -> None:
    """Compile small programs, and write a page of each."""
    FOLDER.mkdir(exist_ok=True)
    tiny = api.compile("llama-tiny", rack="quad", tp=2)
    api.page(tiny, FOLDER / "tiny.html")
    waves = api.compile("llama-tiny", rack="quad", tp=2, objective="throughput")
    api.page(waves, FOLDER / "waves.html")
    api.page(api.compile("llama-tiny", rack="ring-8", tp=2, pp=4), FOLDER / "ring.html")
    row = api.compile("llama-tiny", rack="quad", tp=2, layout="row")
    api.page(api.diff(tiny, row), FOLDER / "diff.html")


if __name__ == "__main__":
    main()
