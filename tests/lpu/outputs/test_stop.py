"""A signal ends the process wherever it arrives, also where Python drops exceptions."""

import subprocess
import sys

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
