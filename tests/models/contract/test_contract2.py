"""Every array of every op of facts/contract2.md against its vectors, made with Python integers, by bits."""

import numpy as np
import pytest
from contract_forms.every import FORMS
from contract_forms.form import Case, cases, compute, differing, op_of

CASES = cases()
NAMED = [name for name in CASES if name != "error"]  # those must be refused: test_refused.py
EAGER = [name for name in NAMED if name in ("parts0", "mxfp40", "combine0", "scalar")]


@pytest.mark.parametrize("name", NAMED)
def test_no_bit_differs(name: str) -> None:
    case = CASES[name]
    found = compute(name, case)
    wrong = {array: differing(got, case[array]) for array, got in found.items()}
    assert wrong == dict.fromkeys(found, 0)
    taken = {array for array in case if array in FORMS[op_of(name)][1] or case[array].ndim == 0}
    host = {"starts", "freq", "positions", "counter", "key", "seed", "position", "z"}  # before tracing
    assert set(case) - taken - host <= set(found) | ({"qn", "kn", "g", "raw"} if name == "delta6" else set())


@pytest.mark.parametrize("name", EAGER)
def test_no_bit_differs_op_by_op(name: str) -> None:
    found = compute(name, CASES[name], jit=False)
    assert {array: differing(got, CASES[name][array]) for array, got in found.items()} == dict.fromkeys(
        found, 0
    )


def test_a_bit_that_differs_is_counted() -> None:
    case: Case = CASES["parts0"] | {"y": CASES["parts0"]["y"].copy()}
    case["y"].view(np.uint32)[0, 0] ^= 1
    assert differing(compute("parts0", CASES["parts0"])["y"], case["y"]) == 1
    assert differing(case["y"][:1], case["y"]) == case["y"].size
