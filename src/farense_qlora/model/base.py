"""Load a base model: the miniature, a local folder or a hub id, in 4 bits, ready for this device."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, get_total_parameters, load_model
from mlx_lm.utils import load_tokenizer as mlx_lm_tokenizer

from ..config import HOME, Config
from ..data.tokens import Reader
from ..errors import UserError, reason
from ..table import Drawn, Table
from ..text import decimal, size
from . import cpu
from .adapters import load_adapter
from .cpu.ops import keeps_dense
from .download import MINIATURE, find_model
from .folder import AGAIN, TEMPLATE, for_mlx_lm, quantized_copy, read_config, with_files
from .machine import memory_bytes, on_cpu
from .packed import group_masks
from .rope import check_positions

# What `load_base` makes a base of.
BASE_SETTINGS = ("model", "bits", "quantization", "group_size", "chat_template")
# Tokens that stand for what is not text.
MEDIA = re.compile(r"image|audio|video|vision", re.IGNORECASE)
# Families that mlx-lm does not decode in batches.
ONE_BY_ONE = ("llama4", "gpt_bigcode")
# Bytes of temporary arrays up to which MLX runs ahead with a large model on the CPU.
RUN_AHEAD = 500_000_000


@dataclass(frozen=True, kw_only=True, repr=False)
class Base(Drawn, Reader):
    """A loaded base model with its tokenizer, which shows its facts as the last line of a cell.

    `name` is what was asked for and `path` the folder that mlx-lm loads; `bits` are those of a weight,
    or of most where they differ.
    """

    model: nn.Module
    name: str
    bits: int
    parameters: int
    size_gb: float
    load_seconds: float

    def table(self) -> Table:
        """What the model is, for people: of its weights the kinds that there are."""
        kinds = {(layer.bits, layer.mode) for layer in self.model.modules() if "scales" in layer}
        said = [f"{bits}" if mode == "affine" else f"{bits} ({mode})" for bits, mode in sorted(kinds)]
        facts = [
            ("Modelo", self.name),
            ("Parâmetros", f"{decimal(self.parameters / 1e6, 1)} milhões"),
            ("Bits por peso", " e ".join(said) or str(self.bits)),
            ("Em memória", size(self.size_gb)),
            ("Carregado em", f"{decimal(self.load_seconds, 1)} s"),
        ]
        return Table.of_facts("Modelo base", facts)


def load_tokenizer(config: Config) -> Reader:
    """What reads text as the model that `config` names does, without its weights; raises as `load_base` does.

    >>> data = fq.load_data(config, fq.load_tokenizer(config))
    """
    return _opened(config)[0]


def load_base(config: Config) -> Base:
    """Load the model that `config` names; with fewer than 16 `bits` one of 16 is quantized once and cached.

    The miniature ships in 4 bits; with `bits` 16 its weights are those, dequantized. `chat_template` is a
    Jinja file in place of the model's own template; a model may have none. Raises `UserError` when the model
    is missing, incomplete, cannot be had, or would not compute what it is known to.

    >>> fq.load_base(config).bits
    4
    """
    start = time.perf_counter()
    name, bits = config.base_model, config.bits
    reader, folder = _opened(config)
    with _explained(f"o modelo {name}"), redirect_stdout(StringIO()):
        model, about = load_model(reader.path, lazy=True)  # `make_ready` has its say first
    quantization = about.get("quantization") or about.get("quantization_config")
    _check_vocabulary(model, reader.tokenizer, folder)
    learnt = next((part.wpe.weight.shape[0] for part in model.modules() if "wpe" in part), None)
    if learnt and config.max_seq_length > learnt:  # mlx would read what lies behind the last
        raise UserError(f"o modelo {name} só aprendeu {learnt} posições: ponha max_seq_length em {learnt}")
    if bits == 16 and quantization:
        dequantize_model(model)
    elif quantization:
        bits = quantization.get("bits", bits)  # as it comes
    make_ready(model)
    with _explained(f"o modelo {name}"):
        check_positions(model, about, name)
        mx.eval(model(mx.array([[0]])))  # what mlx-lm cannot compute fails here, not after an hour
    return Base(
        **vars(reader),
        model=model,
        name=name,
        bits=bits,
        parameters=get_total_parameters(model),
        size_gb=sum(array.nbytes for _, array in tree_flatten(model.parameters())) / 1e9,
        load_seconds=time.perf_counter() - start,
    )


def load_tuned(config: Config, adapter: Path) -> Base:
    """Load the model that `config` names with the adapter in the folder `adapter` on it, for inference.

    Raises `UserError` as `load_base` and `load_adapter` do.

    >>> tuned = fq.load_tuned(config, run.best_adapter)
    """
    base = load_base(config)
    load_adapter(base.model, adapter)
    return base


def make_ready(model: nn.Module) -> None:
    """Freeze `model`, let it compute as is fastest on this device, and bring its weights into memory."""
    if on_cpu():
        # 16-bit floats have no fast path on the CPU, and mlx's small compiled kernels need g++ at run time.
        mx.disable_compile()
        model.set_dtype(mx.float32)
    else:
        mx.set_cache_limit(memory_bytes() // 8)  # what MLX may keep of freed memory
        if mx.metal.is_available():
            # Weights stay in memory, as far as macOS recommends.
            mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    cpu.enable(model)
    group_masks(model)
    model.freeze()
    mx.eval(model.parameters())
    if on_cpu() and not keeps_dense(model):
        # Past this MLX waits for what it has begun before it begins more: weights made for it do not pile up.
        mx.set_memory_limit(mx.get_active_memory() + RUN_AHEAD)


def check_same_base(configs: Mapping[str, Config]) -> None:
    """Raise `UserError` unless `load_base` gives the same for all `configs`, by what each is called."""
    (first, one), *others = configs.items()
    for name, other in others:
        for setting in BASE_SETTINGS:
            here, there = (getattr(config, setting) or "nenhum" for config in (other, one))
            if here != there:
                raise UserError(
                    f"«{name}» e «{first}» não têm a mesma base: {setting} é {here} num e {there} no outro; "
                    "escolha os que partiram da mesma"
                )


def _opened(config: Config) -> tuple[Reader, Path]:
    """The tokenizer of the model that `config` names with the folder that mlx-lm loads, made of as many bits
    and with the template asked for; and the folder that it came in."""
    name = config.base_model
    template = _read_template(config.chat_template) if config.chat_template else None
    with _explained(f"o modelo {name}"):
        folder = find_model(name)
        path = for_mlx_lm(folder)
        about = read_config(path)
        if about["model_type"] in ONE_BY_ONE:
            raise UserError(
                f"o mlx-lm não responde a várias perguntas ao mesmo tempo com modelos do tipo "
                f"«{about['model_type']}»: escolha outro modelo base"
            )
        quantization = about.get("quantization") or about.get("quantization_config")
        if config.bits == 16 and quantization and path != MINIATURE:
            raise UserError(
                f"o modelo {name} já vem quantizado: para LoRA simples indique o modelo de 16 bits"
            )
        if config.bits < 16 and not quantization:
            path = quantized_copy(path, config)
        if template is not None:
            path = with_files(path, {TEMPLATE: template})
    with _explained(f"o tokenizer de {name}"):
        tokenizer = mlx_lm_tokenizer(path, eos_token_ids=about.get("eos_token_id"))
    if template is not None:
        tokenizer.chat_template, tokenizer._chat_template = template, None
    named = tokenizer.chat_template
    if isinstance(named, dict) and "default" not in named:
        raise UserError(
            f"o modelo {name} tem vários modelos de conversa ({', '.join(sorted(named))}) e nenhum é o "
            "«default»: indique em chat_template o ficheiro do que quer"
        )
    return Reader(tokenizer=tokenizer, path=path), folder


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Inside, whatever mlx-lm or Transformers raise on a damaged model becomes a `UserError` of one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a dozen unrelated types, by the file and the field that is wrong
        raise UserError(f"não consigo carregar {what}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """What a failed load says, in one line of Portuguese as far as it is known."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno:
        return f"{error.filename or 'o disco'}: {reason(error)}"
    if found := re.match(r"(Missing|Received) (\d+) parameters", text):
        some = ", ".join(part.strip(" .") for part in text.partition(":")[2].split(",")[:3])
        which = "em falta" if found[1] == "Missing" else "que não são desta arquitetura"
        return f"parâmetros {which}: {found[2]} ({some}…); {AGAIN}"
    if found := re.match(r"Model type (\S+) not supported", text):
        return f"o mlx-lm não conhece modelos do tipo «{found[1]}»: atualize-o ou escolha outro modelo"
    if isinstance(error, TypeError) and "required positional argument" in text:
        missing = ", ".join(re.findall(r"'(\w+)'", text))
        return f"o mlx-lm pede campos que config.json não tem ({missing}): {AGAIN}, ou escolha outro"
    if isinstance(error, KeyError):
        return f"falta o campo «{error.args[0]}»: {AGAIN}"
    return f"{text[:300]} ({type(error).__name__})"


def _check_vocabulary(model: nn.Module, tokenizer: TokenizerWrapper, folder: Path) -> None:
    """Raise `UserError` if the tokenizer in `folder` has tokens that the model has no embedding for: it
    would read what lies behind the last one."""
    kinds = (nn.Embedding, nn.QuantizedEmbedding)
    rows = max((layer.weight.shape[0] for layer in model.modules() if isinstance(layer, kinds)), default=0)
    beyond = sorted((token, text) for text, token in tokenizer.get_vocab().items() if token >= rows > 0)
    if not beyond:
        return
    special = tokenizer.added_tokens_decoder
    # Transformers adds some that a family usually has: those stand in no file, and so in no text.
    files = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*token*.json"))
    named = [
        f"«{text}» ({token})"
        for token, text in beyond
        if (json.dumps(text) in files or json.dumps(text, ensure_ascii=False) in files)
        # Nor do those of pictures and sounds, of which a Gemma without eyes still has one.
        and not (token in special and special[token].special and MEDIA.search(text))
    ]
    if named:
        said = ", ".join(named[:5]) + (f" e mais {len(named) - 5}" if len(named) > 5 else "")
        raise UserError(
            f"o tokenizer em {folder} tem tokens para além dos {rows} que o modelo conhece: {said}; tire-os, "
            "ou dê-lhes linhas no modelo de 16 bits (resize_token_embeddings, do transformers)"
        )


def _read_template(file: str) -> str:
    path = Path(file).expanduser()
    try:
        return (path if path.exists() else HOME / path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "não é texto em UTF-8"
        raise UserError(f"chat_template: não consigo ler {file}: {why}") from None
