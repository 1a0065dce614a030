"""Prompts as token ids."""

from collections.abc import Sequence

from lpu.inputs.chat import chat_prompt
from lpu.inputs.document import FileError
from lpu.inputs.model import OpenModel
from lpu.inputs.text import checked_ids

Prompt = str | Sequence[int]


def prompt_ids(
    prompts: Sequence[Prompt], model: OpenModel, vocab: int, *, chat: bool = False
) -> list[list[int]]:
    """Token ids of every prompt: texts are tokenized, ids kept; all are checked against the vocabulary.

    chat: each text is a user's message, to be put into the chat template of the model's folder.
    """
    out: list[list[int]] = []
    for prompt in prompts:
        if not isinstance(prompt, str):
            out.append(list(prompt))
            continue
        tokenizer = model.tokenizer()
        if tokenizer is None:
            raise FileError(f"prompt: {model.name} has no tokenizer. Give the prompt as --prompt-ids 1,2,3.")
        if chat:
            out.append(tokenizer.encode_bare(chat_prompt(model.folder, prompt)))
        else:
            out.append(tokenizer.encode(prompt))
    return checked_ids(out, vocab)


def made_up(model: OpenModel, least: int = 0) -> list[list[int]]:
    """Prompts where none are given: of an encoder one more than a step takes, of many lengths."""
    if model.encodes:
        count, each = model.step.batch, model.step.chunk
        return [one[:each] for one in default_prompts(count + 1, model.vocab, max(each - count, 4))]
    return default_prompts(model.step.batch, model.vocab, least)


def default_prompts(batch: int, vocab: int, least: int = 0) -> list[list[int]]:
    """Fixed prompts of different lengths, one per row of the batch, of at least `least` tokens."""
    return [[(7 * i + 13 * row + 1) % vocab for i in range(max(4, least) + row)] for row in range(batch)]
