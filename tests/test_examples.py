import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from compiler.options import CompileOptions
from fabric.catalog import chip_spec
from fabric.rack import load_rack
from lpu import api
from lpu.certify.equivalence import difference
from lpu.decode.decoders import reference_decode
from lpu.decode.generate import generate

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def parallel(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES / "own_module")
    import parallel  # pyright: ignore[reportMissingImports]

    return parallel


@pytest.mark.parametrize("accumulators", [1, 2, 64])
def test_matmuls_that_run_side_by_side_do_not_share_accumulators(
    parallel: ModuleType, accumulators: int
) -> None:
    rack = load_rack("quad", chip_spec("lp30").with_numbers(accumulators=accumulators))
    for layout in ("column", "2d"):
        options = CompileOptions(tp=4, pp=1, layout=layout)
        assert api.compile(parallel.Parallel, rack=rack, context=[160], options=options).reports[160].ok


@pytest.mark.slow
def test_a_module_of_ones_own_has_the_bits_of_its_plain_execution(parallel: ModuleType) -> None:
    compiled = api.compile(parallel.Parallel, rack="quad", context=[160], options=CompileOptions(tp=2, pp=2))
    run = api.run(compiled, [[3, 1, 4]], tokens=3)
    reference = generate(reference_decode(compiled.model), [[3, 1, 4]], 3, batch=1)
    assert difference(run.generation, reference) == ""


@pytest.mark.slow
@pytest.mark.parametrize("script", ["demo.py", "own_module/compile_it.py"])
def test_an_example_runs_and_finds_its_bits_equal(script: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / script], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout
