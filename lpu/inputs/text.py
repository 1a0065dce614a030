"""Prompt text to token ids and back: bytes, or the `tokenizer.json` of a Hugging Face folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpu.inputs.document import FileError
from lpu.inputs.ends import named_end

BYTES = 256
BYTE_VOCAB = 259  # 256 bytes, then these three
BOS, EOS, PAD = 256, 257, 258


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """Text to ids and ids to text. `name` says which vocabulary it is; ends: its end tokens.

    encode_bare: without the tokens that begin every text, as a chat template writes them itself.
    """

    name: str
    encode: Callable[[str], list[int]]
    encode_bare: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    ends: frozenset[int] = frozenset()


def byte_tokenizer() -> Tokenizer:
    """The UTF-8 bytes of the text after one bos; invalid UTF-8 decodes to replacement characters."""
    return Tokenizer(
        name="bytes",
        encode=lambda text: [BOS, *text.encode()],
        encode_bare=lambda text: list(text.encode()),
        decode=lambda ids: bytes(i for i in ids if 0 <= i < BYTES).decode(errors="replace"),
        ends=frozenset((EOS,)),
    )


def folder_tokenizer(folder: Path) -> Tokenizer:
    """The `tokenizer.json` of a Hugging Face folder, through the tokenizers library (an extra).

    Raises FileError if the file is missing or broken, or the library is not installed.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileError(f"text: {path}: is not there. Give the prompt as --prompt-ids.")
    try:
        from tokenizers import Tokenizer as Library  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise FileError(
            f"text: {path}: needs the tokenizers library. "
            "pip install 'lpu-emulator[tokenizers]', or give the prompt as --prompt-ids."
        ) from None
    try:
        library: Any = Library.from_file(str(path))
        library.no_truncation()  # as saved by a trainer: a prompt is neither cut nor filled up
        library.no_padding()
    except Exception as error:
        raise FileError(f"text: {path}: is no tokenizer: {' '.join(str(error).split())}") from None

    def asked(what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # the library raises plain ones
            reason = " ".join(str(error).split())
            raise FileError(
                f"text: {path}: cannot {what}: {reason}. Mend it, or give --prompt-ids."
            ) from None

    end = named_end(folder)
    found = None if end is None else library.token_to_id(end)
    return Tokenizer(
        name="tokenizer.json",
        ends=frozenset() if found is None else frozenset((int(found),)),
        encode=lambda text: [int(i) for i in asked("encode", lambda: library.encode(text).ids)],
        encode_bare=lambda text: [
            int(i) for i in asked("encode", lambda: library.encode(text, add_special_tokens=False).ids)
        ],
        decode=lambda ids: str(asked("decode", lambda: library.decode(list(ids)))),
    )


def tokenizer_for(vocab: int, folder: Path | None) -> Tokenizer | None:
    """The tokenizer of a model, None if it has only ids: a folder's own, or bytes for a vocabulary of 259."""
    if folder is not None and (folder / "tokenizer.json").is_file():
        return folder_tokenizer(folder)
    return byte_tokenizer() if vocab == BYTE_VOCAB else None


def parse_ids(text: str) -> list[list[int]]:
    """`1,2,3;4,5` is two prompts of token ids; anything else raises FileError."""
    prompts: list[list[int]] = []
    for part in text.split(";"):
        try:
            prompts.append([int(word) for word in part.split(",")])
        except ValueError:
            raise FileError(
                f"prompt: {part.strip()!r} is no list of token ids. "
                "Write --prompt-ids 1,2,3 with ; between prompts."
            ) from None
    return prompts


def checked_ids(prompts: Sequence[Sequence[int]], vocab: int) -> list[list[int]]:
    """The prompts as lists, each of at least one id of the vocabulary; FileError otherwise."""
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            raise FileError(f"prompt: prompt {number} is empty. Give at least one token.")
        wrong = [token for token in prompt if not 0 <= token < vocab]
        if wrong:
            raise FileError(
                f"prompt: prompt {number} holds token {wrong[0]}, the vocabulary has 0 to {vocab - 1}."
            )
    return [list(prompt) for prompt in prompts]
