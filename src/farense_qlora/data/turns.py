"""A prompt and the answer to it as texts, told apart while a chat template writes them.

A prompt is what the template writes when it is the model's turn, and an answer is what it adds to that. Where
it adds the answer to another text (a system text that moves to the last turn, thoughts that earlier turns
lose), the answer alone is taken, behind the prompt.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .rows import Message
from .template import Template, stand_in

# Stand in for a question and its answer, to see what a template writes around them.
QUESTION, ANSWER = "\ue000\ue001", "\ue002\ue003"


def around(template: Template) -> tuple[str, str]:
    """What answers of this model begin and end with that a person is not to hear, mostly nothing."""
    prompt, asked = write_prompt(template, [{"role": "user", "content": QUESTION}])
    lead, tail = write_answer(template, prompt, asked, {"role": "assistant", "content": ANSWER}).split(ANSWER)
    for stop in template.stops:
        tail = tail.removesuffix(stop)
    return lead.strip(), tail.strip()


def write_prompt(template: Template, messages: Sequence[Message]) -> tuple[str, list[Message]]:
    """The prompt, and the messages that the template made it of: as they are or, when it does not take the
    system's texts, with each of them in the user's turn that follows. Raises `ValueError`."""
    refused = lost = ""
    for asked in _ways(list(messages)):
        try:
            text = template.write(asked, prompt=True)
        except Exception as error:  # as every template may
            refused = refused or " ".join(str(error).split())
            continue
        missing = template.lost(asked)
        if not missing:
            return text, asked
        lost = lost or missing
    raise ValueError(
        f"o modelo de conversa (chat template) deixa de fora {lost}"
        if lost
        else f"o modelo não aceita esta conversa ({refused})"
    )


def _ways(messages: list[Message]) -> Iterator[list[Message]]:
    """`messages` as they can be put to a template: calls with arguments as objects or as JSON, system texts
    apart or in the user's turn."""
    folded = _fold(messages)
    for way in [messages, folded] if folded else [messages]:
        yield way
        if any(message.get("tool_calls") for message in way):
            yield [_as_json(message) for message in way]


def _fold(messages: list[Message]) -> list[Message]:
    """`messages` with every system text before the question that follows it; empty when there is none."""
    folded: list[Message] = []
    waiting = ""
    for message in messages:
        if message["role"] == "system":
            waiting += f"{message['content']}\n\n" if message["content"].strip() else ""
        elif message["role"] == "user":
            folded.append({**message, "content": waiting + message["content"]})
            waiting = ""
        else:
            folded.append(message)
    return [] if waiting or len(folded) == len(messages) else folded


def _as_json(message: Message) -> Message:
    """`message` with the arguments of its calls as JSON: some templates write them as they come."""
    calls = []
    for call in message.get("tool_calls", ()):
        arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": arguments}})
    return {**message, "tool_calls": calls} if calls else message


def write_answer(template: Template, prompt: str, asked: list[Message], message: Message) -> str:
    """What the model is to say after the `prompt` of `asked`: the answer as the template writes it, and its
    end. Raises `ValueError`."""
    said, calls = message["content"].strip(), message.get("tool_calls")
    thought = message.get("reasoning_content", "").strip()
    told = f"{said}\0{thought}\0{json.dumps(calls or '', ensure_ascii=False)}"
    if stop := next((stop for stop in template.stops if stop in told), None):
        raise ValueError(f"a resposta contém «{stop}», que é o que faz o modelo parar: tire-o")
    before = [stand_in(one, number)[0] for number, one in enumerate(asked)]
    for way, tried, words in _answers(template, message, len(asked)):
        try:
            text = template.write([*asked, way])
        except Exception:  # as every template may
            continue
        shown = template.write_stand_ins([*before, tried])
        if not text.startswith(prompt) or shown is None or any(word not in shown for word in words):
            continue
        added = text.removeprefix(prompt)
        if said not in added and not calls:
            continue
        if not thought:
            added = template.without_empty_thought(added, said)
        end = added.rfind(said) + len(said) if said and not calls else 0
        return _to_the_end(template, added, end)
    return _answer_alone(template, prompt, asked, message)


def _answers(
    template: Template, message: Message, number: int
) -> Iterator[tuple[Message, Message, list[str]]]:
    """`message` as templates take it: calls with arguments as objects or as JSON, a thought in a field of its
    own or before the text. With each a stand-in for it as the `number`th, and the words that this has."""
    probe, words = stand_in(message, number)
    yield message, probe, words
    if message.get("tool_calls"):
        yield _as_json(message), _as_json(probe), words
    if message.get("reasoning_content"):
        yield _with_thought(template, message), _with_thought(template, probe), words


def _with_thought(template: Template, message: Message) -> Message:
    """`message` with its thought before its text."""
    rest = dict(message)
    thought = template.closed(rest.pop("reasoning_content"))
    return {**rest, "content": f"{template.thought_marks[0]}\n{thought}{message['content']}"}


def _answer_alone(template: Template, prompt: str, asked: list[Message], message: Message) -> str:
    """The answer to a prompt that the template does not go on from: what it writes around any answer."""
    question = [*asked[:-1], {**asked[-1], "content": QUESTION}] if asked else []
    try:
        if message.get("tool_calls"):
            return _call_alone(template, question, message)
        before = template.write(question, prompt=True).split(QUESTION)
        whole = template.write([*question, {"role": "assistant", "content": ANSWER}]).split(QUESTION)
        lead, after = whole[-1].split(ANSWER)
    except Exception as error:  # as every template may; also an answer that is not there, or twice
        raise ValueError(f"o modelo não aceita esta resposta ({' '.join(str(error).split())})") from None
    # The template writes less than the prompt (a thought that the prompt has), or more (a space).
    lead = lead.removeprefix(before[-1]) if lead.startswith(before[-1]) and len(before) > 1 else ""
    lead = template.without_empty_thought(lead)
    said, start = message["content"].strip(), template.thought_marks[0]
    opened = prompt.rstrip().endswith(start)
    if thought := message.get("reasoning_content", "").strip():
        lead += "" if opened else f"{start}\n"
        said = template.closed(thought) + said
    elif opened:  # what the prompt opens, the answer closes
        lead = template.closed("")
    return _to_the_end(template, lead + said + after, len(lead + said))


def _call_alone(template: Template, question: list[Message], message: Message) -> str:
    """A call after a prompt that the template does not go on from, or only as if it had no thought."""
    either = template, replace(template, thinking=not template.thinking)
    opened = [one.write(question, prompt=True).split(QUESTION)[-1] for one in either]
    for way, tried, words in _answers(template, message, 0):
        shown = template.write([*question, tried])
        if all(word in shown for word in words):
            added = template.write([*question, way]).split(QUESTION)[-1]
            added = next((added.removeprefix(one) for one in opened if added.startswith(one)), "")
            return _to_the_end(template, template.without_empty_thought(added), 0)
    raise ValueError("o modelo de conversa (chat template) não diz toda a resposta com chamadas")


def _to_the_end(template: Template, text: str, start: int) -> str:
    """`text` to its first stop; where there is none, to `start` and the end token."""
    ends = [at + len(stop) for stop in template.stops if (at := text.find(stop)) >= 0]
    if ends:
        return text[: min(ends)]
    return (text[:start] if start else text.rstrip()) + str(template.tokenizer.eos_token)
