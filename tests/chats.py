"""Families of chat templates, and for each what a model of it must learn: written by hand, from the template.

The templates (`tests/templates`) are ours, in the manner of the public ones: their special tokens, their
structure and their quirks, not their words. Each family has a tokenizer of its own kind, made in a moment.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_tokenizer
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEMPLATES = Path(__file__).parent / "templates"
FOLDERS = TemporaryDirectory(prefix="farense-chats-")
SENTENCES = [
    "Em que época subiu o Farense? Subiu em 1989-90, e foi à final da Taça de Portugal: perdeu a final.",
    "Quem foi o treinador? Foi Paco Fortes.\n\nE o avançado?\n\nFoi Hassan: marcou 21 golos em 1994-95.\n",
    "Lista:\n  - Hassan, avançado\n  - Hajry, médio\n\n    def golos(época):\n        return {'total': 44}\n",
    "### User:\nOlá!\n\n### Assistant:\nSim. USER: ASSISTANT: [INST] [/INST] system user assistant",
]
# How a word, a number, signs or white space part, in the tokenizers of Llama 3, Qwen and others: signs take
# the line breaks after them, so a text does not part where a template joins two.
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

KEPT: Callable[[str], str] = str
TRIMMED: Callable[[str], str] = str.strip


@dataclass(frozen=True)
class Family:
    """What is told of a chat template: `lead` + an answer + `end` is what its models write after a prompt."""

    special: str  # its special tokens, the stop tokens among them
    eos: str
    end: str
    lead: str = ""
    words: str = ""  # added tokens that are text and not special
    bos: str = ""
    bos_a_turn: bool = False  # at each turn of the user, not once
    stops: str = ""  # those besides `eos`
    layout: str = "bytes"  # how text becomes tokens
    eats_space: bool = False  # its special tokens take the white space after them
    shows_system: bool = True  # else the template refuses or loses it, and it goes into the user's turn
    system_at_end: bool = False  # shown in the last message, if that is the user's; else it is lost
    answer: Callable[[str], str] = KEPT  # what the template makes of an answer's text
    one_pass: bool = True  # one rendering of a plain conversation holds all its answers
    dated: bool = False
    calls: str = ""  # how a call is written, whole; empty where the template shows none
    lists_tools: bool = False  # though it shows no call
    call_ends: tuple[str, ...] = ("",)  # any of them, after what `calls` says
    thought: str = "<think>\n{thought}\n</think>\n\n{answer}"  # how one is written, and its answer
    thought_has_lead: bool = False  # `thought` says where the lead goes

    def text(self, answer: str, thought: str = "") -> str:
        """What the model writes to give `answer`, after `thought` if there is one, up to where it stops."""
        if not thought:
            return self.lead + self.answer(answer) + self.end
        whole = self.thought.format(thought=thought, answer=answer) + self.end
        return whole if self.thought_has_lead else self.lead + whole


IM = "<|im_start|> <|im_end|>"
QWEN_TEXT = "<think> </think> <tool_call> </tool_call> <tool_response> </tool_response>"
MISTRAL_CALL = '[{{"name": "{name}", "arguments": {arguments}, "id": "{id}"}}]</s>'
MISTRAL_TOOLS = "[AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]"
LLAMA_3 = "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|>"
DEEPSEEK = (
    "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜> "
    "<｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁outputs▁begin｜> "
    "<｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>"
)
COMMAND = (
    "<BOS_TOKEN> <EOS_TOKEN> <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|SYSTEM_TOKEN|> <|USER_TOKEN|> "
    "<|CHATBOT_TOKEN|> <|START_RESPONSE|> <|END_RESPONSE|> <|START_THINKING|> <|END_THINKING|> "
    "<|START_ACTION|> <|END_ACTION|> <|START_TOOL_RESULT|> <|END_TOOL_RESULT|>"
)
GEMMA_4 = (
    "<bos> <eos> <|turn> <turn|> <|channel> <channel|> <|think|> <|tool> <tool|> "
    "<|tool_call> <tool_call|> <|tool_response> <tool_response|>"
)
PLAIN: dict[str, Any] = {"special": "<unk> <s> </s>", "bos": "<s>", "eos": "</s>", "end": "</s>"}

FAMILIES = {
    "mistral-v0.1": Family(**PLAIN, layout="legacy", lead=" ", shows_system=False),
    "mistral-v0.3": Family(
        **PLAIN | {"special": f"<unk> <s> </s> [INST] [/INST] {MISTRAL_TOOLS}"},
        layout="first",
        lead=" ",
        answer=TRIMMED,
        system_at_end=True,
        calls="[TOOL_CALLS] " + MISTRAL_CALL,
    ),
    "mistral-nemo": Family(
        **PLAIN | {"special": f"<unk> <s> </s> [INST] [/INST] {MISTRAL_TOOLS}"},
        system_at_end=True,
        calls="[TOOL_CALLS]" + MISTRAL_CALL,
    ),
    "mistral-small": Family(
        **PLAIN
        | {
            "special": "<unk> <s> </s> [INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [ARGS] "
            + MISTRAL_TOOLS
        },
        dated=True,
        calls="[TOOL_CALLS]{name}[ARGS]{arguments}</s>",
    ),
    "llama-2": Family(**PLAIN | {"end": " </s>"}, layout="legacy", lead=" ", bos_a_turn=True, answer=TRIMMED),
    "llama-3": Family(
        LLAMA_3,
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        stops="<|eot_id|>",
        end="<|eot_id|>",
        answer=TRIMMED,
    ),
    "llama-3.2": Family(
        LLAMA_3,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        stops="<|end_of_text|> <|eom_id|>",
        end="<|eot_id|>",
        answer=TRIMMED,
        dated=True,
        calls='{{"name": "{name}", "parameters": {arguments}}}<|eot_id|>',
    ),
    "chatml": Family(IM, eos="<|im_end|>", end="<|im_end|>"),
    "qwen2.5": Family(
        f"<|endoftext|> {IM}",
        words=QWEN_TEXT,
        eos="<|im_end|>",
        stops="<|endoftext|>",
        end="<|im_end|>",
        layout="bytes, composed",
        calls='<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call><|im_end|>',
    ),
    "qwen3": Family(
        f"<|endoftext|> {IM}",
        words=QWEN_TEXT,
        eos="<|im_end|>",
        stops="<|endoftext|>",
        end="<|im_end|>",
        layout="bytes, composed",
        answer=lambda text: text.lstrip("\n"),
        one_pass=False,
        calls='<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call><|im_end|>',
    ),
    "qwen3-switchless": Family(
        f"<|endoftext|> {IM}",
        words=QWEN_TEXT,
        eos="<|im_end|>",
        stops="<|endoftext|>",
        end="<|im_end|>",
        layout="bytes, composed",
        answer=lambda text: text.lstrip("\n"),
        calls='<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call><|im_end|>',
    ),
    "qwen3-thinking": Family(
        f"<|endoftext|> {IM}",
        words=QWEN_TEXT,
        eos="<|im_end|>",
        stops="<|endoftext|>",
        lead="\n</think>\n\n",  # the prompt opened a thought
        end="<|im_end|>",
        layout="bytes, composed",
        answer=lambda text: text.lstrip("\n"),
        one_pass=False,
        calls=(
            '\n</think>\n\n<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n'
            "</tool_call><|im_end|>"
        ),
        thought="{thought}\n</think>\n\n{answer}",
        thought_has_lead=True,
    ),
    "qwen3.5": Family(
        f"<|endoftext|> {IM}",
        words=QWEN_TEXT,
        eos="<|im_end|>",
        stops="<|endoftext|>",
        end="<|im_end|>",
        layout="bytes, composed",
        answer=TRIMMED,
        one_pass=False,
        calls=(
            "<tool_call>\n<function={name}>\n<parameter=época>\n1989-90\n</parameter>\n</function>\n"
            "</tool_call><|im_end|>"
        ),
        thought="{thought}\n</think>\n\n{answer}",
    ),
    "gemma-2": Family(
        "<pad> <eos> <bos> <unk> <start_of_turn> <end_of_turn>",
        bos="<bos>",
        eos="<eos>",
        stops="<end_of_turn>",
        end="<end_of_turn>",
        layout="never",
        answer=TRIMMED,
        shows_system=False,
    ),
    "gemma-3": Family(
        "<pad> <eos> <bos> <unk> <start_of_turn> <end_of_turn>",
        bos="<bos>",
        eos="<eos>",
        stops="<end_of_turn>",
        end="<end_of_turn>",
        layout="never",
        answer=TRIMMED,
    ),
    "gemma-4": Family(
        GEMMA_4,
        bos="<bos>",
        eos="<eos>",
        stops="<turn|> <|tool_response>",
        end="<turn|>",
        layout="never",
        answer=TRIMMED,
        one_pass=False,
        calls="<|tool_call>call:{name}{arguments}<tool_call|>",
        call_ends=("<|tool_response>", "<eos>"),
        thought="<|channel>thought\n{thought}\n<channel|>{answer}",
    ),
    "phi-3": Family(
        "<unk> <s> </s> <|endoftext|> <|system|> <|user|> <|assistant|> <|end|>",
        eos="<|endoftext|>",
        stops="<|end|> <|assistant|>",
        end="<|end|>",
        layout="legacy",
        eats_space=True,
        lead=" ",
        answer=str.lstrip,
    ),
    "phi-4": Family(
        "<|endoftext|> <|im_start|> <|im_sep|> <|im_end|>",
        eos="<|im_end|>",
        stops="<|endoftext|>",
        end="<|im_end|>",
    ),
    "deepseek-r1": Family(
        DEEPSEEK,
        words="<think> </think>",
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        lead="\n</think>\n\n",  # the prompt opened a thought
        end="<｜end▁of▁sentence｜>",
        one_pass=False,
        thought="{thought}\n</think>\n\n{answer}",
        thought_has_lead=True,
    ),
    "deepseek-v3": Family(
        DEEPSEEK, bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>", end="<｜end▁of▁sentence｜>"
    ),
    "smollm2": Family(f"<|endoftext|> {IM}", eos="<|im_end|>", end="<|im_end|>"),
    "smollm3": Family(
        f"<|begin_of_text|> <|end_of_text|> {IM}",
        words="<think> </think> <tool_call> </tool_call>",
        lists_tools=True,
        eos="<|im_end|>",
        end="<|im_end|>",
        answer=lambda text: text.lstrip("\n"),
        dated=True,
    ),
    "gpt-oss": Family(
        "<|startoftext|> <|endoftext|> <|start|> <|message|> <|channel|> <|end|> <|return|> <|call|>",
        eos="<|return|>",
        stops="<|endoftext|> <|call|>",
        lead="<|channel|>final<|message|>",
        end="<|return|>",
        one_pass=False,
        dated=True,
        calls=" to=functions.{name}<|channel|>commentary json<|message|>{arguments}<|call|>",
        thought=(
            "<|channel|>analysis<|message|>{thought}<|end|>"
            "<|start|>assistant<|channel|>final<|message|>{answer}"
        ),
        thought_has_lead=True,
    ),
    "glm-4": Family(
        "<|endoftext|> [gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>",
        eos="<|endoftext|>",
        stops="<|user|> <|observation|>",
        end="<|endoftext|>",
        one_pass=False,
    ),
    "glm-4.5": Family(
        "<|endoftext|> [gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>",
        words="<think> </think> <tool_call> </tool_call> <arg_key> </arg_key> <arg_value> </arg_value>",
        eos="<|endoftext|>",
        stops="<|user|> <|observation|>",
        lead="\n",
        end="<|endoftext|>",
        answer=TRIMMED,
        one_pass=False,
        calls=(
            "\n<tool_call>{name}\n<arg_key>época</arg_key>\n<arg_value>1989-90</arg_value>\n</tool_call>"
            "<|endoftext|>"
        ),
        thought="<think>{thought}</think>\n{answer}",
    ),
    "command-r7b": Family(
        COMMAND,
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        lead="<|START_RESPONSE|>",
        end="<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        calls=(
            '<|START_ACTION|>[\n    {{"tool_call_id": "0", "tool_name": "{name}", "parameters": {arguments}}}'
            "\n]<|END_ACTION|><|END_OF_TURN_TOKEN|>"
        ),
    ),
    "granite": Family(
        "<|end_of_text|> <|start_of_role|> <|end_of_role|> <|tool_call|>",
        eos="<|end_of_text|>",
        end="<|end_of_text|>",
        dated=True,
        calls='<|tool_call|>[{{"name": "{name}", "arguments": {arguments}}}]<|end_of_text|>',
    ),
    "lfm2": Family(
        f"<|startoftext|> <|endoftext|> {IM} <|tool_list_start|> <|tool_list_end|> <|tool_call_start|> "
        "<|tool_call_end|> <|tool_response_start|> <|tool_response_end|>",
        bos="<|startoftext|>",
        lists_tools=True,
        eos="<|im_end|>",
        end="<|im_end|>",
    ),
    "olmo-2": Family(
        "<|endoftext|> <|pad|>",
        words="<|user|> <|assistant|> <|system|>",
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        end="<|endoftext|>",
    ),
    "vicuna": Family(**PLAIN, layout="legacy", lead=" "),
    "zephyr": Family(**PLAIN | {"bos": ""}, layout="legacy"),
    "solar": Family(**PLAIN | {"bos": ""}, layout="legacy", one_pass=False),
    "falcon": Family(
        "<|endoftext|>", eos="<|endoftext|>", end="<|endoftext|>", lead=" ", answer=TRIMMED, one_pass=False
    ),
    "alpaca": Family(**PLAIN, layout="legacy", shows_system=False),
}


@cache
def tokenizer_of(name: str) -> TokenizerWrapper:
    """The tokenizer of a family, with its template, as mlx-lm loads it from a folder."""
    family, folder = FAMILIES[name], Path(FOLDERS.name) / name
    folder.mkdir()
    tokenizer = (
        _pieces(family.layout) if family.layout in ("first", "legacy", "never") else _bytes(family.layout)
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, rstrip=family.eats_space) for text in family.special.split()]
    )
    tokenizer.add_tokens([AddedToken(text, special=False) for text in family.words.split()])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": family.eos,
        "clean_up_tokenization_spaces": False,
    }
    if family.bos:
        settings["bos_token"] = family.bos
        # As in the real ones: a text alone gets a start, which must not come twice in a conversation.
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, tokenizer.token_to_id(family.bos))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    shutil.copy(TEMPLATES / f"{name}.jinja", folder / "chat_template.jinja")
    stops = [tokenizer.token_to_id(text) for text in [family.eos, *family.stops.split()]]
    return load_tokenizer(folder, eos_token_ids=stops)


def _bytes(layout: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(_learnt_bytes())
    if layout == "bytes, composed":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


@cache
def _learnt_bytes() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer.to_str()


@cache
def _learnt_pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A SentencePiece model that became a tokenizer.json has bytes, merges, letters, and runs of spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    learnt = json.loads(tokenizer.to_str())["model"]
    merges = [("▁", "▁"), ("▁▁", "▁▁"), *(tuple(pair) for pair in learnt["merges"])]
    texts = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁▁", "▁▁▁▁", *learnt["vocab"], "<unk>"]
    return {text: token for token, text in enumerate(dict.fromkeys(texts))}, merges


def _pieces(layout: str) -> Tokenizer:
    """Pieces with a space before the first text ("first"), before each ("legacy") or before none."""
    vocab, merges = _learnt_pieces()
    model = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if layout == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif layout == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(back if layout == "never" else [*back, decoders.Strip(" ", 1, 0)])
    return tokenizer
