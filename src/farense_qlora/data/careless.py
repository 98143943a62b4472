"""Questions as people type them: in small letters, without accents, with slips, greetings and abbreviations.

What a model has only seen typed with care it answers badly when it is not. A share of the training rows gets
this; the answers never.
"""

import re
import unicodedata
from dataclasses import replace
from random import Random

from .rows import Row

LONGEST = 300  # characters of what is still a question, and no text to work on
BEFORE = ("Olá!", "Olá,", "Bom dia!", "Boa tarde.", "Boa noite,", "Desculpa,", "Uma pergunta:", "Por favor,",
          "Diz-me lá,", "Queria saber:", "Pergunto eu:", "Ajuda-me:")  # fmt: skip
AFTER = ("Obrigado.", "Obrigada!", "Por favor.", "Se faz favor.", "É para a escola.", "Agradeço.")
# These are for evaluation alone: nothing is trained on them.
OTHER_BEFORE = ("Boas!", "Podes dizer-me, por favor:", "Olá, tudo bem?", "Tenho uma dúvida:", "Já agora,",
                "Bom dia, preciso de ajuda.")  # fmt: skip
OTHER_AFTER = ("Muito obrigado!", "Fico à espera.", "Desde já agradeço.", "É para uma aposta.")
SHORT = {"que": "q", "também": "tb", "quando": "qd", "quantos": "qts", "quantas": "qts", "quanto": "qto",
         "porque": "pq", "não": "n", "muito": "mt", "para": "p/"}  # fmt: skip
ACCENTS = "\u0300\u0301\u0302\u0303\u0327"  # grave, acute, circumflex, tilde, cedilla
KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {key: beside for keys in KEYS for key, beside in zip(keys, keys[1:] + keys[-2], strict=True)}


def careless(text: str, random: Random, other: bool = False) -> str:
    """`text` typed carelessly in one way or more, which `random` draws; `other`: with the greetings that no
    training has. Digits stay as they are.

    >>> careless("Quem treinou o Farense em 1989-90?", Random(4))
    'quem treeinou o farense em 1989-90'
    """
    asked = text
    small, bare, end, short, slip, before, after = (random.random() for _ in range(7))
    if short < 0.25:
        text = re.sub(r"\w+", lambda word: SHORT.get(word[0].lower(), word[0]), text)
    if slip < 0.25:
        text = _with_slip(text, random)
    if end < 0.5:
        text = text.rstrip(" ?.!")
    elif end < 0.65:
        text += random.choice(("?", "??", "!", "..."))
    if before < 0.3:
        greeting = random.choice(OTHER_BEFORE if other else BEFORE)
        text = f"{greeting} {text if greeting[-1] in '.!?' else text[:1].lower() + text[1:]}"
    if after < 0.2:
        text = f"{text} {random.choice(OTHER_AFTER if other else AFTER)}"
    if bare < 0.5:
        letters = unicodedata.normalize("NFD", text)
        text = unicodedata.normalize("NFC", "".join(part for part in letters if part not in ACCENTS))
    return text.lower() if small < 0.65 or text == asked else text


def careless_row(row: Row, random: Random, other: bool = False) -> Row:
    """`row` with its users' questions typed carelessly; what is longer than a question stays."""
    messages = tuple(
        {**message, "content": careless(message["content"], random, other)}
        if message["role"] == "user" and len(message["content"]) <= LONGEST
        else message
        for message in row.messages
    )
    return replace(row, messages=messages)


def sometimes_careless(row: Row, share: float, seed: int, number: int) -> Row:
    """`row`, or for a `share` of all numbers, by `seed`, the same typed carelessly."""
    random = Random(f"{seed} {number}")
    return careless_row(row, random) if random.random() < share else row


def _with_slip(text: str, random: Random) -> str:
    """`text` with a slip in one of its longer words: two letters swapped, one left out, doubled or beside."""
    words = [found.span() for found in re.finditer(r"[^\W\d_]{5,}", text)]
    if not words:
        return text
    start, end = random.choice(words)
    at = random.randrange(start + 1, end - 1)
    letter, following = text[at], text[at + 1]
    slips = (
        following + letter,
        following,
        2 * letter + following,
        NEIGHBOURS.get(letter, letter) + following,
    )
    return text[:at] + random.choice(slips) + text[at + 2 :]
