"""Every array of every op of facts/contract2.md against its vectors, made with Python integers, by bits."""

import numpy as np
import pytest
from contract_forms.every import FORMS
from contract_forms.form import Case, cases, compute, differing, op_of

CASES = cases()


@pytest.mark.parametrize("name", [name for name in CASES if op_of(name) in FORMS])
def test_no_bit_differs(name: str) -> None:
    found = compute(name, CASES[name])
    wrong = {array: differing(got, CASES[name][array]) for array, got in found.items()}
    assert wrong == dict.fromkeys(found, 0)


def test_a_bit_that_differs_is_counted() -> None:
    case: Case = CASES["parts0"] | {"y": CASES["parts0"]["y"].copy()}
    case["y"].view(np.uint32)[0, 0] ^= 1
    assert differing(compute("parts0", CASES["parts0"])["y"], case["y"]) == 1
