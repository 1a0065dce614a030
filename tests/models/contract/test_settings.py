"""Variables of the environment that change what JAX does: pinned, or refused by name."""

import os
import subprocess
import sys
from typing import Any

import jax
import pytest

from models.contract import settings

HOSTILE = {
    "JAX_ENABLE_X64": "0",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DISABLE_JIT": "1",
    "JAX_DEBUG_NANS": "1",
    "JAX_TRANSFER_GUARD": "disallow",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_CHECK_TRACER_LEAKS": "1",
}
ASKED = """
import jax
from models.contract import settings, ops
print([name for name, value in settings.PINNED.items() if getattr(jax.config, name, value) != value])
"""


def child(words: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_what_the_environment_says_is_pinned_once_the_contract_is_imported() -> None:
    done = child(["-c", ASKED], HOSTILE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("value", ["tpu", "cpu,tpu", "no_such_platform"])
@pytest.mark.parametrize("name", ["JAX_PLATFORMS", "JAX_PLATFORM_NAME"])
def test_a_platform_that_cannot_keep_the_contract_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    if name == "JAX_PLATFORM_NAME":
        monkeypatch.setenv(name, value)
        with pytest.raises(settings.SettingError, match=rf"jax: {name}={value}: '\w+' is none of cpu"):
            settings.enable()
        return
    config: Any = jax.config
    before = config.jax_platforms
    jax.config.update("jax_platforms", value)
    try:
        with pytest.raises(settings.SettingError, match=rf"jax: {name}={value}: '\w+' is none of cpu"):
            settings.enable()
    finally:
        jax.config.update("jax_platforms", before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_PLATFORMS", "tpu"),
        ("JAX_PLATFORMS", "rocm"),
        ("JAX_NUMPY_DTYPE_PROMOTION", "foo"),
        ("JAX_ENABLE_X64", "perhaps"),
    ],
)
def test_a_setting_that_jax_cannot_have_is_one_line_and_exit_2(name: str, value: str) -> None:
    done = child(["-m", "lpu", "run", "llama-tiny", "--rack", "pair"], {name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: jax: ")
    assert name in done.stderr.upper()
