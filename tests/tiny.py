"""A tiny random base model made in a second: Mistral's architecture and chat format."""

import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% else %}[INST] {{ message['content'] }} [/INST]{% endif %}{% endfor %}"
)
SENTENCES = [
    "Em que posição ficou o Farense na época de 1989-90?",
    "Na época de 1989-90 o Farense terminou em 1.º lugar e subiu à I Divisão.",
    "Quem foi o treinador do Sporting Clube Farense em 1994-95? Foi Paco Fortes.",
    "Quantos golos marcou e quantos pontos fez o clube? Marcou 44 golos e fez 37 pontos.",
    "Sim, o Farense chegou à final da Taça de Portugal. Não, perdeu com o Estrela da Amadora.",
]
PEOPLE = {
    "Hassan": "avançado",
    "Paco": "treinador",
    "João": "presidente",
    "Hajry": "médio",
    "Rui": "guarda-redes",
    "Mané": "avançado",
    "Duque": "presidente",
    "Zé": "treinador",
}
STRANGERS = {"Kiki": "roupeiro", "Wesley": "massagista"}
SHAPE = {
    "model_type": "mistral",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}


def write_rows(path: Path, names: dict[str, str]) -> Path:
    """Write who each of `names` was, a question and an answer, as JSON lines."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{name}: quem foi?"},
                {"role": "assistant", "content": f"Foi {what}."},
            ],
            "kind": "facto",
            "table": "coaches",
            "fact": f"coaches/{name}",
        }
        for name, what in names.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def build_tiny_model(folder: Path, seed: int = 0, pieces: str = "") -> Path:
    """Write the model, in float32 and not quantized, to `folder`, as mlx-lm loads it; the same for a seed.

    Its tokenizer is BPE over bytes, or over pieces with bytes for what they lack, as Mistral's own is: in its
    newer layout ("first" puts a space before the first text) or in the `pieces` = "legacy" one (before each).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _pieces(pieces) if pieces else _bytes()
    _write_tokenizer(tokenizer, folder)
    vocab_size = tokenizer.get_vocab_size()
    config = {
        **SHAPE,
        "architectures": ["MistralForCausalLM"],
        "vocab_size": vocab_size,
        "bos_token_id": SPECIAL_TOKENS.index("<s>"),
        "eos_token_id": SPECIAL_TOKENS.index("</s>"),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict(config))
    # Matrices twice as wide as mlx's make answers that depend on the question, and learning quick.
    weights = {name: array * array.ndim for name, array in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def _bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _pieces(layout: str) -> Tokenizer:
    """A SentencePiece model that became a tokenizer.json has special tokens, bytes, merges, letters."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    words.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=160, show_progress=False))
    learnt = json.loads(words.to_str())["model"]
    merged = ["".join(pair) for pair in learnt["merges"]]
    letters = [text for text in learnt["vocab"] if text not in merged]
    texts = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), *merged, *letters]
    model = models.BPE(
        {text: token for token, text in enumerate(texts)},
        [tuple(pair) for pair in learnt["merges"]],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    if layout == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=layout, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return tokenizer


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
