"""Every test: XLA's compiled functions kept between runs, and the CPU seconds of each test counted."""

import gc
import os
import resource
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from golden import UPDATE, difference, rewrite
from hypothesis import settings
from passes import is_shaped

ROOT = Path(__file__).parents[1]

# Before jax is imported, here and in every interpreter that a test starts.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# XLA's own optimisation takes two fifths of the suite's time; no bit of the contract depends on it. So that
# this is tested too, .ci/run runs the tests of contract, programs and certificates with XLA_FLAGS empty too.
# The second flag, another third, ends the process in jaxlib 0.12.
OTHER = " --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0" + OTHER)
# Nor does a bit depend on in how many pieces a function is compiled; one takes a fifth less than many.
if (ONE_PIECE := "--xla_cpu_parallel_codegen_split_count=1") not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] = f"{os.environ['XLA_FLAGS']} {ONE_PIECE}".strip()
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # names of source lines, which no test reads
gc.set_threshold(50_000, 20, 20)  # tracing makes millions of small objects, hardly any of them in a circle

settings.register_profile("lpu", deadline=None, derandomize=True)  # the same cases every time, however slowly
settings.load_profile("lpu")
MAPS = Path("/proc/self/maps")
MOST_MAPPED = 20_000
BEGAN = pytest.StashKey[float]()
taken: dict[str, float] = {}


def user_seconds() -> float:
    """User CPU seconds of this process and of the children that it has waited for."""
    return sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cpu", type=int, default=0, metavar="N", help="print the N tests that take the most user CPU"
    )
    parser.addoption(UPDATE, action="store_true", help="rewrite the files of tests/goldens/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks before `-m` chooses by them."""
    for item in items:
        if is_shaped(item.path, item.get_closest_marker("slow") is not None):
            item.add_marker("shaped")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Fails with a diff if a text is not the golden of that name, or rewrites the file if asked to."""

    def hold(name: str, text: str) -> None:
        if request.config.getoption(UPDATE):
            rewrite(name, text)
        if found := difference(name, text):
            pytest.fail(f"{found}\nIf it is meant to be so: pytest {UPDATE} rewrites it.", pytrace=False)

    return hold


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[BEGAN] = user_seconds()


def mapped() -> int:
    """Pieces of memory that this process has mapped; 0 where the system does not tell."""
    return MAPS.read_bytes().count(b"\n") if MAPS.is_file() else 0


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between files, what XLA compiled is given back where it maps much of what Linux allows (65,530 pieces).

    Each compiled function maps some pieces for as long as it lives; beyond the limit XLA ends the process.
    """
    if nextitem is not None and nextitem.path != item.path and mapped() > MOST_MAPPED:
        import jax

        jax.clear_caches()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """The last report of a test carries its seconds, fixtures that it was the first to need included."""
    if call.when == "teardown":
        now = user_seconds()
        item.user_properties.append(("user_seconds", now - item.stash.get(BEGAN, now)))
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, value in report.user_properties:
        if name == "user_seconds" and isinstance(value, float):
            taken[report.nodeid] = value


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"user CPU of the tests: {sum(taken.values()):.0f} s")
    most = sorted(taken.items(), key=lambda kv: -kv[1])[: config.getoption("--cpu")]
    for name, seconds in most:
        terminalreporter.write_line(f"{seconds:8.1f} s  {name}")
