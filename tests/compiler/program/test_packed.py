import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compiler.program.packed import RANKS, TAG, PackedKey, alike, by_kind

SMALL = PackedKey(a=3, b=5, c=2)
NUMBERS = st.tuples(st.integers(0, 7), st.integers(0, 31), st.integers(0, 3))


@given(st.lists(NUMBERS, min_size=1))
def test_numbers_come_back_and_keys_are_ordered_as_the_numbers_are(
    numbers: list[tuple[int, int, int]],
) -> None:
    columns = [np.array(column) for column in zip(*numbers, strict=True)]
    keys = SMALL.pack(*columns)
    assert keys.tolist() == [SMALL.pack(*each) for each in numbers]
    assert [tuple(each) for each in np.stack(SMALL.unpack(keys), axis=-1).tolist()] == numbers
    assert sorted(range(len(numbers)), key=numbers.__getitem__) == np.argsort(keys, kind="stable").tolist()


@pytest.mark.parametrize("wrong", [-1, 1 << 20, np.array([3, -7]), np.array([0, 1 << 40])])
def test_a_number_that_does_not_fit_is_refused_and_mixes_with_no_other(wrong: int | np.ndarray) -> None:
    with pytest.raises(OverflowError, match="must be from 0 to 1048575"):
        RANKS.pack(3, wrong)


def test_a_layout_has_at_most_the_bits_of_a_word() -> None:
    with pytest.raises(AssertionError):
        PackedKey(a=40, b=24)


def test_a_tag_names_a_value_and_a_line() -> None:
    assert TAG.pack(5, 7) == 5 << 40 | 7
    assert TAG.unpack(TAG.pack(1 << 22, (1 << 40) - 1)) == (1 << 22, (1 << 40) - 1)


@given(st.lists(st.integers(0, 4)))
def test_equal_keys_are_found_in_order(keys: list[int]) -> None:
    found = [rows.tolist() for rows in alike(np.array(keys, np.int64))]
    assert found == [[i for i, key in enumerate(keys) if key == one] for one in sorted(set(keys))]


def test_rows_are_told_apart_by_opcode_and_kernel_and_transfers_have_none() -> None:
    op, aux = np.array([14, 0, 14, 14, 0]), np.array([2, -1, 0, 2, -1])
    found = [(kind, kernel, rows.tolist()) for kind, kernel, rows in by_kind(op, aux)]
    assert found == [(0, -1, [1, 4]), (14, 0, [2]), (14, 2, [0, 3])]
