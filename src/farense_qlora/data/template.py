"""What a model's chat template writes, and what of a conversation it leaves out.

A template is a program of somebody else's: it may raise anything, move what it is given, or lose it.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from .rows import Message

# Templates that write the date of today get this one, or what was trained would not be what is asked.
TODAY = datetime(2026, 1, 1)
# For a base model that has none: what is said, a line each.
PLAIN = (
    "{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)


@dataclass(frozen=True)
class Template:
    """The chat template of `tokenizer`, as it writes with `tools`, and with thoughts or without."""

    tokenizer: Any
    tools: Sequence[Any] = ()
    thinking: bool = False

    def write(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """The text of `messages`, or with `prompt` that after which the model answers; raises anything."""
        return self.tokenizer.apply_chat_template(
            list(messages),
            tools=list(self.tools) or None,
            tokenize=False,
            add_generation_prompt=prompt,
            **self.settings,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """With what `apply_chat_template` writes for others, mlx-lm or Transformers, what it writes here."""
        if getattr(self.tokenizer, "_chat_template", None) is not None:  # a function of mlx-lm's own
            return {"enable_thinking": self.thinking}
        text = chat_template(self.tokenizer, bool(self.tools))
        return {"enable_thinking": self.thinking, "chat_template": text}

    def write_stand_ins(self, messages: Sequence[Message], prompt: bool = False) -> str | None:
        """`write` of stand-ins, which most rows have in common, or None where that raises."""
        text = chat_template(self.tokenizer, bool(self.tools))
        return _written(json.dumps([messages, list(self.tools)]), self.tokenizer, text, self.thinking, prompt)

    def lost(self, messages: Sequence[Message]) -> str:
        """What the prompt made of `messages` leaves out, in words; or nothing.

        It is tried on stand-ins for what is said: the words of one message may well stand in another.
        """
        tried = [stand_in(message, number) for number, message in enumerate(messages)]
        tools = {f"q7zkt{number}kz7q": tool for number, tool in enumerate(self.tools)}
        other = replace(self, tools=[_named(tool, name) for name, tool in tools.items()])
        text = other.write_stand_ins([probe for probe, _ in tried], prompt=True)
        if text is None:  # it did take what stands there
            return ""
        for message, (_, words) in zip(messages, tried, strict=True):
            # The thoughts of earlier turns are the template's to show or not.
            if any(word not in text for word in words if not word.startswith("q7zkr")):
                return f"o que diz a mensagem de «{message['role']}»: {message['content'].strip()[:40]!r}"
        for name, tool in tools.items():
            if name not in text:
                return f"a ferramenta «{tool.get('function', tool)['name']}»"
        return ""

    @property
    def stops(self) -> list[str]:
        """The texts of the tokens that end an answer."""
        tokens = getattr(self.tokenizer, "eos_token_ids", None) or [self.tokenizer.eos_token_id]
        return [str(text) for text in self.tokenizer.convert_ids_to_tokens(sorted(tokens)) if text]

    @property
    def thought_marks(self) -> tuple[str, str]:
        """What a thought of this model stands between."""
        return (
            getattr(self.tokenizer, "think_start", None) or "<think>",
            getattr(self.tokenizer, "think_end", None) or "</think>",
        )

    def closed(self, thought: str) -> str:
        """`thought` and what stands between it and its answer; what opens it is apart."""
        end = self.thought_marks[1]
        return f"{thought}\n{end}" + ("" if "channel" in end else "\n\n")

    def without_empty_thought(self, text: str, said: str = "") -> str:
        """`text` but for a thought without words before what is `said`: nobody is to learn it."""
        for start, end in {self.thought_marks, ("<think>", "</think>")}:
            empty = re.match(rf"\s*{re.escape(start)}\s*{re.escape(end)}\s*", text)
            if empty and said in text[empty.end() :]:
                return text[empty.end() :]
        return text


@lru_cache(maxsize=1024)
def _written(tried: str, tokenizer: Any, _template: str, thinking: bool, prompt: bool) -> str | None:
    messages, tools = json.loads(tried)
    try:
        return Template(tokenizer, tools, thinking).write(messages, prompt)
    except Exception:  # as every template may
        return None


def stand_in(message: Message, number: int) -> tuple[Message, list[str]]:
    """A message like `message`, the `number`th, whose texts are words that stand nowhere else; and these."""
    probe = dict(message)
    words: list[str] = []

    def word(kind: str) -> str:
        words.append(f"q7zk{kind}{number}x{len(words)}kz7q")
        return words[-1]

    if message["content"].strip():
        probe["content"] = word("c")
    if message.get("reasoning_content"):
        probe["reasoning_content"] = word("r")
    if message.get("tool_calls"):
        probe["tool_calls"] = []
        for call in message["tool_calls"]:
            given = call["function"]["arguments"]
            given = json.dumps(word("a")) if isinstance(given, str) else {key: word("a") for key in given}
            probe["tool_calls"].append({**call, "function": {"name": word("f"), "arguments": given}})
    return probe, words


def _named(tool: dict[str, Any], name: str) -> dict[str, Any]:
    """`tool` under another name."""
    function = tool.get("function")
    return {**tool, "function": {**function, "name": name}} if function else {**tool, "name": name}


def chat_template(tokenizer: Any, tools: bool = False) -> str:
    """The chat template of `tokenizer`, that for tools if it has one and they are wanted, with the date fixed
    at `TODAY`; when it has none, one that writes what is said, a line each."""
    text = tokenizer.chat_template
    if isinstance(text, dict):
        text = text.get("tool_use" if tools else "default") or text.get("default")
    if text is None:
        first = list(tokenizer.encode(""))[:1]
        begins = first and first == [tokenizer.bos_token_id]
        return ("{{ bos_token }}" if begins else "") + PLAIN
    return _dated(text)


def template_missing(tokenizer: Any) -> bool:
    """Whether the model comes without a chat template."""
    return tokenizer.chat_template is None and getattr(tokenizer, "_chat_template", None) is None


@lru_cache(maxsize=8)
def _dated(text: str) -> str:
    """The template `text` in which the date is `TODAY`, by a macro in place of the function that tells it."""
    macro = "{%- macro strftime_now(format) -%}"
    if "strftime_now" not in text or text.startswith(macro):
        return text
    formats = {found[2] for found in re.finditer(r"strftime_now\(\s*(['\"])(.*?)\1", text)}
    dates = json.dumps({form: TODAY.strftime(form) for form in sorted(formats)})
    return f'{macro}{{{{ {dates}[format] | default("{TODAY:%Y-%m-%d}") }}}}{{%- endmacro -%}}{text}'
