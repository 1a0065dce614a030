"""The example notebooks run from their first cell to their last."""

from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def test_notebooks_are_kept_without_results() -> None:
    nbformat: Any = pytest.importorskip("nbformat")
    assert len(NOTEBOOKS) == 4
    for path in NOTEBOOKS:
        book = nbformat.read(path, as_version=4)
        nbformat.validate(book)
        assert not any(cell.get("outputs") for cell in book.cells)


def test_the_code_of_a_notebook_runs_as_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells in this process, which costs no kernel; the slow test below runs them in Jupyter's."""
    nbformat: Any = pytest.importorskip("nbformat")
    pytest.importorskip("pandas")
    pytest.importorskip("plotly")
    for path in NOTEBOOKS:
        space: dict[str, Any] = {}
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{path.name}", "exec"), space)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_kernel_and_shows_its_figures(path: Path, tmp_path: Path) -> None:
    nbclient: Any = pytest.importorskip("nbclient")
    nbformat: Any = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = {kind for cell in book.cells for one in cell.get("outputs", ()) for kind in one.get("data", {})}
    assert {"text/html", "application/vnd.plotly.v1+json"} <= kinds
