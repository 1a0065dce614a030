from pathlib import Path

import pytest

from lpu.inputs.document import FileError
from lpu.inputs.text import BOS, byte_tokenizer, checked_ids, folder_tokenizer, parse_ids, tokenizer_for


def test_bytes_come_back_as_the_text_they_were() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("Grüße")
    assert ids[0] == BOS
    assert tokenizer.decode(ids) == "Grüße"
    assert tokenizer.decode([0xFF, 258]) == "�"


def test_ids_of_several_prompts() -> None:
    assert parse_ids("1, 2,3;4") == [[1, 2, 3], [4]]
    with pytest.raises(FileError, match="'4,x' is no list of token ids"):
        parse_ids("1;4,x")
    with pytest.raises(FileError, match="prompt 2 holds token 9, the vocabulary has 0 to 8"):
        checked_ids([[8], [9]], 9)
    with pytest.raises(FileError, match="prompt 1 is empty"):
        checked_ids([[]], 9)


def test_only_the_tiny_vocabulary_is_bytes(tmp_path: Path) -> None:
    found = tokenizer_for(259, None)
    assert found is not None
    assert found.name == "bytes"
    assert tokenizer_for(32_000, tmp_path) is None


def test_a_broken_or_missing_tokenizer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"is not there\. Give the prompt as --prompt-ids"):
        folder_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(FileError, match=r"needs the tokenizers library|is no tokenizer"):
        folder_tokenizer(tmp_path)


def test_a_folders_own_tokenizer_is_used(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {"[UNK]": 0, "static": 1, "schedule": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    found = tokenizer_for(259, tmp_path)
    assert found is not None
    assert found.encode("static schedule static x") == [1, 2, 1, 0]
    assert found.decode([2, 1]) == "schedule static"


def test_truncation_and_padding_saved_with_a_tokenizer_are_off(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {"[UNK]": 0, "static": 1, "schedule": 2, "[PAD]": 3}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_truncation(2)
    made.enable_padding(length=6, pad_id=3)
    made.save(str(tmp_path / "tokenizer.json"))
    assert folder_tokenizer(tmp_path).encode("static schedule static") == [1, 2, 1]
