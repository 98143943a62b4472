"""The tokenizer of a model as a GGUF file has it, such that llama.cpp cuts text in the same pieces."""

import json
import re
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.chat import prompt_tokens
from ..data.template import chat_template
from ..errors import UserError

# How a tokenizer.json over bytes cuts text in pieces, step by step, and what llama.cpp calls the same.
GPT_2 = "as GPT-2 does"  # built into the ByteLevel step
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {
    (GPT_2,): "gpt-2",
    (r"\p{N}", GPT_2): "smollm",
    (LLAMA_3,): "llama-bpe",
    (LLAMA_3.replace("{1,3}", ""),): "qwen2",
}
# Numbers in groups of a few digits, words, single signs, white space: llama.cpp does not have this, but can
# be told of such groups; see `vocabulary`.
DIGIT_GROUPS = re.compile(r"\[ -\]\?\\p\{N\}\{1,(\d)\}" + re.escape(r"| ?\p{L}+| ?[^\s\p{L}\p{N}]|\s+"))


def vocabulary(tokenizer: TokenizerWrapper, size: int) -> dict[str, Any]:
    """The tokenizer as the `add_` methods of a GGUF writer take it, by their names; raises `UserError` for
    one that llama.cpp does not have."""
    from gguf import TokenType

    described = json.loads(tokenizer._tokenizer.backend_tokenizer.to_str())
    model, (pre, digits) = described["model"], _pre_tokenizer(described)
    sentencepiece = pre == "default"
    if model["type"] != "BPE" or pre is None:
        kind = type(tokenizer._tokenizer).__name__
        raise UserError(
            f"não sei escrever em GGUF o tokenizer deste modelo ({kind}): só BPE sobre bytes, com um "
            "pré-tokenizer que o llama.cpp tenha, ou SentencePiece; exporte-o com --converter e a pasta do "
            "llama.cpp (de github.com/ggml-org/llama.cpp)"
        )
    tokens, types = [f"[PAD{i}]" for i in range(size)], [TokenType.UNUSED] * size
    for text, token in model["vocab"].items():
        tokens[token], types[token] = text, TokenType.NORMAL
        # llama.cpp looks for tokens of this type before it cuts the text in pieces: thus a number is cut from
        # its start on, as the tokenizer's own expression does. Whether it does so in the questions at hand is
        # what the check of an export finds out.
        if digits and re.fullmatch(f"[Ġ-][0-9]{{{digits}}}", text):
            tokens[token], types[token] = text.replace("Ġ", " "), TokenType.USER_DEFINED
        if sentencepiece and re.fullmatch("<0x[0-9A-F]{2}>", text):
            types[token] = TokenType.BYTE
    for added in described["added_tokens"]:
        if added["id"] >= size:  # of pictures, in a model without eyes
            continue
        tokens[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    facts: dict[str, Any] = {
        "tokenizer_model": "llama" if sentencepiece else "gpt2",
        "tokenizer_pre": pre,
        "token_list": tokens,
        "token_types": [int(kind) for kind in types],
        "chat_template": chat_template(tokenizer),
    }
    if sentencepiece:  # llama.cpp joins the pair whose token has the highest score
        order = {text: -float(rank) for rank, text in reversed([*enumerate(map("".join, pairs))])}
        facts["token_scores"] = [order.get(text, -float(len(pairs))) for text in tokens]
        facts["add_space_prefix"] = _prefixed(described)
    else:
        facts["token_merges"] = [" ".join(pair) for pair in pairs]
    for name in ("bos", "eos", "unk", "pad"):
        token = getattr(tokenizer, f"{name}_token_id", None)
        if token is not None and token < size:  # Transformers adds one that a family usually has
            facts[f"{name}_token_id"] = token
    # The template writes it; whoever has only the text of a question must add it.
    question = prompt_tokens([{"role": "user", "content": "?"}], tokenizer)
    facts["add_bos_token"] = question[0] == tokenizer.bos_token_id
    return facts


def _pre_tokenizer(described: dict[str, Any]) -> tuple[str | None, int]:
    """What llama.cpp calls the way in which a tokenizer.json cuts text in pieces, None if it has no such way,
    and in groups of how many digits it has to be told to cut numbers (0: it knows)."""
    cuts: list[str] = []
    steps = _steps(described["pre_tokenizer"], "pretokenizers")
    if described["model"].get("byte_fallback") and all(step["type"] != "Split" for step in steps):
        return "default", 0
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"Regex": expression}}:
                cuts.append(expression)
            case {"type": "Digits", "individual_digits": True}:
                cuts.append(r"\p{N}")
            case {"type": "ByteLevel"}:
                cuts += [GPT_2] if step.get("use_regex", True) else []
            case _:
                return None, 0
    if not steps or steps[-1]["type"] != "ByteLevel":
        return None, 0
    if len(cuts) == 1 and (groups := DIGIT_GROUPS.fullmatch(cuts[0])):
        return "gpt-2", int(groups[1])
    return PRE_TOKENIZERS.get(tuple(cuts)), 0


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The steps that a part of a tokenizer.json has, whether none, one or several under `name`."""
    whole: list[dict[str, Any]] = (part or {}).get(name, [part] if part else [])
    return whole


def _prefixed(described: dict[str, Any]) -> bool:
    """Whether a SentencePiece tokenizer puts a space before the text that follows a special token: all but
    those do that only put one at the very start, where a conversation has its first special token."""
    normal = [step["type"] for step in _steps(described["normalizer"], "normalizers")]
    schemes = [step.get("prepend_scheme") for step in _steps(described["pre_tokenizer"], "pretokenizers")]
    return "Prepend" in normal or "always" in schemes
