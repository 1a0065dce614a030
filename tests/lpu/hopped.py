"""Hops of small models behind a bridge, compiled for tests."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from pairs import source

from compiler.hops import compile_hops
from compiler.options import CompileOptions
from compiler.program.isa import Columns
from compiler.program.manifest import HOPS, Manifest
from compiler.program.program import Program
from compiler.split import Split
from fabric.catalog import bridge_spec
from fabric.rack import load_rack
from lpu.check.check import Report, check_columns
from models.config import TransformerConfig
from models.contract import ops
from models.contract.parts import down_starts
from models.step import Step, family_step

BRIDGE = bridge_spec("spectrum-x")


def hopped(
    config: TransformerConfig, rack: str, rows: int = 1, **options: Any
) -> tuple[Step, Program, Split]:
    """(the step, the program of its FFN hops, the split) for this many rows."""
    config = replace(config, ffn_down=config.ffn_down or "fp16")
    step = family_step(config, batch=rows, context=80)
    return step, *compile_hops(source(step, (80,)), load_rack(rack), CompileOptions(**options), BRIDGE)


def contract_ffn(config: TransformerConfig, weights: dict[str, np.ndarray], layer: int, x: Array) -> Array:
    """What the FFN of a layer makes of its normalised input [rows, hidden], before the residual sum."""

    def product(a: Array, name: str, starts: tuple[int, ...] = ()) -> Array:
        at = f"layers.{layer}.ffn.{name}"
        codes, exponent = (jnp.asarray(weights[f"{at}.{part}"]) for part in ("codes", "exponent"))
        return ops.matmul(a, codes, exponent, starts=starts)

    both = ops.glu(product(x, "gate"), product(x, "up"), activation=config.activation)
    y = product(both, "down", down_starts(config.ffn))
    return ops.round16(y) if config.ffn_up == "fp16" else y


def checked(program: Program, columns: Columns, manifest: Manifest | None = None) -> Report:
    """The report on columns in place of the program's, or with another manifest."""
    stated = program.manifest if manifest is None else manifest
    return check_columns(stated, program.loads(), columns, program.manifest.cycles[HOPS])
