"""Chat templates of folders: what becomes of a message, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lpu.inputs.chat import chat_prompt, conversation_prompt
from lpu.inputs.document import FileError
from lpu.inputs.open import open_model
from lpu.inputs.prompts import prompt_ids

PLAIN = "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
ANSWER = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def with_template(folder: Path, template: object) -> Path:
    tokens = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | {"chat_template": template}))
    return folder


def test_a_message_is_put_into_the_template(tmp_path: Path) -> None:
    wanted = "<s><|user|>Grüße</s><|assistant|>"
    assert chat_prompt(with_template(tmp_path, PLAIN + ANSWER), "Grüße") == wanted
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": PLAIN + ANSWER}]
    assert chat_prompt(with_template(tmp_path, several), "Grüße") == wanted
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0] | tojson }}")
    assert chat_prompt(tmp_path, "ü") == '{"role": "user", "content": "ü"}'


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, r"has no chat template \(chat_template.jinja, or chat_template in tokenizer_config.json\)"),
        ([{"name": "other", "template": "x"}], "has no chat template"),
        ("{% if %}", "the template cannot be used: "),
        ("{{ raise_exception('only tools') }}", "the template cannot be used: only tools"),
        ("{{ strftime_now('%d') }}", "'strftime_now' is undefined"),
        ("{{ messages.__class__.__mro__ }}", "the template cannot be used: access to attribute"),
        ("{{ messages.append(1) }}", "the template cannot be used: "),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line(tmp_path: Path, template: object, said: str) -> None:
    with pytest.raises(FileError, match=said) as caught:
        chat_prompt(with_template(tmp_path, template), "hi")
    assert "\n" not in str(caught.value)


def test_a_chat_has_no_other_beginning_than_its_template(tmp_path: Path) -> None:
    model = open_model("llama-tiny", context=[32])
    with pytest.raises(FileError, match="the model has no folder"):
        prompt_ids(["hi"], model, model.vocab, chat=True)
    spoken = replace(model, folder=with_template(tmp_path, "[{{ messages[0].content }}]"))
    assert prompt_ids(["hi"], spoken, model.vocab, chat=True) == [list(b"[hi]")]
    assert prompt_ids(["hi"], spoken, model.vocab) == [[256, *b"hi"]]


def test_a_conversation_with_tools_is_put_into_the_template(tmp_path: Path) -> None:
    folder = with_template(tmp_path, "{{ tools | tojson }}" + PLAIN + ANSWER)
    said = [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]
    wanted = '[{"name": "f"}]<s><|user|>a</s><|tool|>b</s>'
    assert conversation_prompt(folder, said, tools=[{"name": "f"}], answer=False) == wanted
    assert conversation_prompt(folder, said, tools=[{"name": "f"}]) == wanted + "<|assistant|>"
