"""A signal ends the process wherever it arrives, also where Python drops exceptions."""

import subprocess
import sys
from pathlib import Path

import pytest

COLLECTOR = """
import gc, os, signal, time
gc.callbacks.append(lambda phase, info: phase == "start" and armed and os.kill(os.getpid(), armed.pop()))
armed = [signal.{name}]
gc.collect()
"""
FINALIZER = """
import os, signal, time
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0)
Last()
"""
TEMPLATE = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, which may run the tests, has it ignored
from lpu.outputs.stop import Stopped, install
install()
try:
{body}
    time.sleep(20)
    print("lost")
except Stopped as stopped:
    print("ended by", stopped.signal)
except KeyboardInterrupt:
    print("ended by", 2)
"""


@pytest.mark.parametrize("place", [COLLECTOR, FINALIZER])
@pytest.mark.parametrize(("name", "number"), [("SIGTERM", 15), ("SIGHUP", 1), ("SIGINT", 2)])
def test_a_signal_within_a_finalizer_or_the_collector_is_obeyed(place: str, name: str, number: int) -> None:
    body = "\n".join("    " + line for line in place.format(name=name).splitlines())
    said = subprocess.run(
        [sys.executable, "-c", TEMPLATE.format(body=body)], capture_output=True, text=True, check=False
    )
    assert said.stdout.split("\n")[0] == f"ended by {number}", said.stderr


def test_another_exception_of_a_finalizer_is_told_as_always() -> None:
    code = """
from lpu.outputs.stop import install
install()
class Last:
    def __del__(self):
        raise ValueError("told")
Last()
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ValueError: told" in said.stderr
    assert said.returncode == 0


EVERYWHERE = """
import os, signal, sys, time
from pathlib import Path
from lpu.outputs import stop, write
from lpu.outputs.workspace import leave

def told_at(moment, out):
    def trace(frame, event, about):
        nonlocal moment
        if not frame.f_code.co_filename.endswith(("contextlib.py", "workspace.py", "write.py", "stop.py")):
            return None
        moment -= 1
        if not moment:
            os.kill(os.getpid(), signal.SIGTERM)
        return trace
    stop.install()
    sys.settrace(trace)
    try:
        with write.atomic_folder(out) as part:
            (part / "a").write_text("a")
        sys.settrace(None)
        time.sleep(0 if moment > 0 else 1)  # what a finalizer lost comes again
        return 1 if moment > 0 else 2
    except stop.Stopped:
        sys.settrace(None)
        leave()
        return 0

moment, codes, home = 0, set(), Path(sys.argv[1])
while 1 not in codes:
    moment += 1
    out = home / str(moment) / "new" / "out"
    if not (child := os.fork()):
        os._exit(told_at(moment, out))
    codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    whole = [str((out / name).relative_to(home)) for name in ("", "a", "lpu-files.json")]
    assert not left or set(left) >= set(whole), (moment, left)
    assert ".lpu" not in {path.suffix for path in home.rglob("*") if path.is_dir()}, (moment, left)
    for path in sorted(home.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
assert codes == {0, 1}, codes
print(moment, "moments")
"""


def test_a_signal_at_every_line_of_writing_leaves_nothing_or_all(tmp_path: Path) -> None:
    code = [sys.executable, "-c", EVERYWHERE, str(tmp_path)]
    said = subprocess.run(code, capture_output=True, text=True, check=False)
    assert not said.returncode, said.stderr
    assert int(said.stdout.split()[0]) > 200
