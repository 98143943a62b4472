"""What a family is asked to do, step by step as people use it; `python tests/model/family_checks.py` writes
down what each did, for docs/references/MODELOS.md."""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]
    import conftest  # noqa: F401 - the fast BLAS, before mlx

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from converting import LLAMA_CPP, converter_version, write_known
from mlx.utils import tree_flatten
from mlx_lm import generate
from mlx_lm.utils import load_model
from model.families import FAMILIES, build

from farense_qlora.config import Config
from farense_qlora.data.batches import Batch, collate
from farense_qlora.data.tokens import Example
from farense_qlora.errors import UserError
from farense_qlora.exporting import loaders, verify
from farense_qlora.exporting.export import _write
from farense_qlora.exporting.kinds import FORMATS
from farense_qlora.model.adapters import attach, load_adapter, save_adapter
from farense_qlora.model.base import load_base
from farense_qlora.model.checkpointing import use_checkpointing
from farense_qlora.model.decode import answers
from farense_qlora.model.packed import check_packable
from farense_qlora.training.step import arrays, batch_loss

RECORD = Path(__file__).with_name("families.json")
VERSIONS = ("mlx-lm", "transformers")
CONFIG = Config.of("mini", rank=8, alpha=16.0)
DROPOUT = 0.2
TOKENS = 300  # that questions are made of
# The formats that are tried, and how far from the trained model each may be, as a share of how far the base
# is: rounding to 16 bits, and to 4 bits, which in random weights like these is coarse.
LIMITS = {
    "mlx": 1e-4,
    "peft": 1e-4,
    "fused": 1e-3,
    "fused-4bit": 0.5,
    "gguf": 1e-3,
    "gguf-lora": 1e-3,
    "ollama": 1e-3,
}
# Those of them that llama.cpp's converter writes, which is tried where there is one.
CONVERTED = {f"{name} --converter": name for name in ("gguf", "gguf-lora")}
CHECKS = ("carrega", "perda", "packing", "grad_checkpoint", "responde", *LIMITS, *CONVERTED)
DIFFERS = (
    "o {} não calcula este modelo como o mlx-lm, e por isso a exportação não passa na verificação: exporte "
    "como «mlx» ou «fused»"
)

Measured = tuple[float, dict[str, mx.array]]


class Tried:
    """A model of `family` in 4 bits with an adapter that says something, and what it is asked to do.

    Each check raises `UserError` where we refuse, and `AssertionError` where what we do is wrong.
    """

    def __init__(self, family: str, tokenizer: Path, folder: Path):
        self.folder = folder
        self.config = Config(model=str(build(family, tokenizer, folder / "base")), bits=4)
        self.base = load_base(self.config)
        self.model = self.base.model
        random = np.random.default_rng(0)
        self.rows = [
            Example(random.integers(5, TOKENS, length).astype(np.int32), np.arange(length) >= length // 2)
            for length in (14, 9)
        ]

    def adapt(self) -> None:
        """Make the adapter, and a plain mlx-lm model with it."""
        attach(self.model, CONFIG)
        mx.random.seed(1)
        for name, array in tree_flatten(self.model.trainable_parameters()):
            if name.endswith("lora_b"):
                self.model.load_weights([(name, mx.random.normal(array.shape) * 0.2)], strict=False)
        self.adapter = self.folder / "adapter"
        self.adapter.mkdir()
        save_adapter(self.model, CONFIG, self.base.name, self.adapter)
        self.plain = load_model(self.base.path)[0]
        load_adapter(self.plain, self.adapter)

    def perda(self) -> None:
        """The loss is the one that mlx-lm's own model gives."""
        self.adapt()
        self.model.eval()
        ours = sum(batch_loss(self.model, *arrays(batch)).item() for batch in self.apart())
        theirs = 0.0
        for row in self.rows:
            losses = nn.losses.cross_entropy(
                self.plain(mx.array(row.tokens[None, :-1])), mx.array(row.tokens[None, 1:])
            )
            theirs += losses[0, mx.array(np.flatnonzero(row.supervised[1:]))].sum().item()
        assert abs(ours - theirs) < 1e-5 * theirs, (ours, theirs)

    def packing(self) -> None:
        """Rows in one window give the loss and the gradient that they give apart."""
        check_packable(self.model, self.base.name)
        agree(self.measured([collate([self.rows], window=32)]), self.measured(self.apart()))

    def responde(self) -> None:
        """Several questions at once get the answers that mlx-lm gives to each."""
        prompts = [row.tokens[: len(row.tokens) // 2].tolist() for row in self.rows]
        alone = [generate(self.plain, self.base.tokenizer, prompt, max_tokens=4) for prompt in prompts]
        said = answers(self.base, prompts, 4)
        assert said == alone, (said, alone)

    def grad_checkpoint(self) -> None:
        """Computed again or kept, with the same dropout: the loss and the gradient are the same."""
        use_checkpointing(self.model)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module._p_1 = 1 - DROPOUT
        with patch.object(mx, "custom_function", Kept):
            kept = self.measured(self.apart())
        again = self.measured(self.apart())
        agree(again, kept)

    def reference(self) -> verify.Reference:
        """What the trained model makes of a row, for exports to be held against."""
        rows: list[dict[str, Any]] = [
            {
                "prompt": row.tokens[: len(row.tokens) // 2].tolist(),
                "tokens": row.tokens.tolist(),
                "positions": np.flatnonzero(row.supervised[1:]).tolist(),
            }
            for row in self.rows[:1]
        ]
        with quiet():
            before = verify.logits_of(load_base(self.config).model, rows)
        self.model.eval()
        after = verify.logits_of(self.model, rows)
        prompts = [row["prompt"] for row in rows]
        return verify.Reference(
            tokenizer=self.base.tokenizer,
            rows=rows,
            prompts=prompts,
            max_tokens=1,
            logits=after,
            logits_base=before,
            answers=answers(self.base, prompts, 1),
        )

    def exported(self, format: str, reference: verify.Reference, converter: Path | None = None) -> None:
        """What the tool of `format` reads, in this process, is the trained model."""
        to, temporary = self.folder / format, self.folder / f"{format}-temporary"
        to.mkdir(), temporary.mkdir()
        differs = DIFFERS.format("llama.cpp" if converter else "transformers")
        with quiet(), patch.object(verify, "_asked", asked_here):
            model, loaded = _write(
                format, self.base, self.adapter, "nome", to, temporary, reference.dtype, converter
            )
            try:
                report = verify.verify(reference, format, model, loaded)
            except SystemExit as refusal:  # which is how the process of a tool ends
                raise UserError(str(refusal)) from None
            except ValueError:
                if not converter:  # what is ours loads
                    raise
                raise UserError(differs) from None
        near = report.kl <= LIMITS[format] * report.kl_base
        if not near and (format == "peft" or converter) and report.failures:
            raise UserError(differs)
        assert near, report

    def apart(self) -> list[Batch]:
        """The rows in one batch, side by side."""
        return [collate([[row] for row in self.rows])]

    def measured(self, batches: list[Batch]) -> Measured:
        """The loss of the batches and its gradient, with the same random numbers each time."""
        self.model.train()
        mx.random.seed(2)
        (batch,) = batches
        loss, grads = nn.value_and_grad(self.model, batch_loss)(self.model, *arrays(batch))
        return loss.item(), dict(tree_flatten(grads))


class Kept:
    """In the place of `mx.custom_function`: what is computed is kept, and has its ordinary gradient."""

    def __init__(self, function: Any):
        self.function = function

    def vjp(self, function: Any) -> Any:
        return function

    def __call__(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def agree(one: Measured, other: Measured) -> None:
    """Two losses, and two gradients as wholes, are the same but for rounding."""
    assert abs(one[0] - other[0]) < 1e-5 * abs(other[0]), (one[0], other[0])
    assert one[1].keys() == other[1].keys()
    norm = sum(array.square().sum() for array in other[1].values())
    difference = sum((array - one[1][name]).square().sum() for name, array in other[1].items())
    assert difference.item() < 1e-8 * norm.item(), (difference.item(), norm.item())


def asked_here(
    reference: verify.Reference, tool: str, model: Path, adapter: Path | None, _: object
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """What an export asks its tool in a process of its own, asked in this one."""
    request = {
        "model": str(model),
        "adapter": str(adapter) if adapter else None,
        "max_tokens": reference.max_tokens,
        "rows": reference.rows,
    }
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "request.json").write_text(json.dumps(request), encoding="utf-8")
        loaders.main(tool, f"{name}/request.json", name)
        logits = np.fromfile(f"{name}/logits", np.float32).reshape(-1, reference.logits.shape[-1])
        return logits, json.loads((Path(name) / "said.json").read_text(encoding="utf-8"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The tools say what they load, line by line."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def outcomes(family: str, tokenizer: Path, folder: Path, known: Path | None = None) -> dict[str, str]:
    """Of each check of `family` why it is refused, or nothing when it passes; those of formats whose tool is
    not installed are left out, and those of the converter unless the folder `known` has a tokenizer that it
    knows. Raises `AssertionError` when one fails."""
    try:
        tried = Tried(family, tokenizer, folder)
    except UserError as refusal:
        return dict.fromkeys(CHECKS, plain(refusal, str(folder / "base")))
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)  # threads wait for each other longer than these models take
    found, reference = {"carrega": ""}, None
    kind = tried.model.model_type
    for name in ("perda", "packing", "responde", *LIMITS, "grad_checkpoint"):
        tool = FORMATS[name].tool if name in LIMITS else "mlx"
        packages = [*verify.TOOLS[tool], *(["gguf"] if tool == "llama" else [])]
        if not all(any(distributions(name=package)) for package in packages):
            continue
        try:
            if name in LIMITS:
                reference = reference or tried.reference()
                tried.exported(name, reference)
            else:
                getattr(tried, name)()
            found[name] = ""
        except UserError as refusal:
            found[name] = plain(refusal, tried.base.name, kind)
    if known:
        # For InternLM's the model of pieces must have as many as there are tokens.
        tried = Tried(family, known / "pieces" if kind == "internlm2" else known, folder / "converted")
        tried.adapt()
        reference = tried.reference()
        for name, format in CONVERTED.items():
            try:
                tried.exported(format, reference, LLAMA_CPP)
                found[name] = ""
            except UserError as refusal:
                found[name] = plain(refusal, tried.base.name, kind)
    return {name: found[name] for name in CHECKS if name in found}


def plain(refusal: UserError, name: str, kind: str = "") -> str:
    """Why, without what the model and its weights are called here, and how a converter said it."""
    text = re.sub(r" \(\w+(\.\w+)*\)| \(«.*»\)", "", str(refusal))
    return text.replace(f" {name}", "").replace(f"do tipo «{kind}»", "deste tipo")


def record() -> None:
    """Write down the outcomes of every family."""
    from tiny import build_tiny_model

    converter = converter_version()
    with tempfile.TemporaryDirectory() as name:
        tokenizer, known = build_tiny_model(Path(name) / "tokenizer"), write_known(Path(name) / "known")
        found = {}
        for number, family in enumerate(FAMILIES):
            tried = outcomes(family, tokenizer, Path(name) / str(number), known)
            found[family] = {"model_type": FAMILIES[family][0], **tried}
            print(family, {key: why for key, why in tried.items() if why}, flush=True)
    versions = {package: version(package) for package in VERSIONS}
    record = {"versions": versions, "converter": converter, "families": found}
    text = json.dumps(record, ensure_ascii=False, indent=1)
    RECORD.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    record()
