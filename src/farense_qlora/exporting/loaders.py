"""What other people's tools make of an export: a script that knows nothing of this package, a tool a process.

    python -P loaders.py TOOL REQUEST ANSWER

REQUEST is a JSON file with the `model` and perhaps the `adapter` to load, `max_tokens`, and `rows`: the
`messages` of a question with its `tools` and what to tell the chat `template` (or, of a bare text, the tokens
of the `prompt`), the `tokens` of the question and its true answer, the `positions` to look at.
ANSWER is a folder, to which go `logits` (positions of all rows, vocabulary) as bare float32, and `said.json`:
for each row the `prompt` tokens that the tool makes of the messages, and its greedy `answer`. On stdout goes
a line for each row.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 32
Seen = tuple[np.ndarray, list[int], str]  # logits (positions, vocabulary), prompt tokens, answer


def mlx(request: dict[str, Any]) -> Iterator[Seen]:
    """Plain mlx-lm: `load` and `batch_generate`."""
    import mlx.core as mx
    from mlx_lm import batch_generate, load
    from mlx_lm.models.switch_layers import SwitchLinear

    model, tokenizer = load(request["model"], adapter_path=request.get("adapter"))[:2]
    if mx.default_device() == mx.cpu and any(isinstance(layer, SwitchLinear) for layer in model.modules()):
        model.set_dtype(mx.float32)  # there MLX computes experts in 32 bits only
    rows, together = request["rows"], 1 if model.model_type == "gemma2" else BATCH  # whose masks are for one
    for start in range(0, len(rows), together):
        part = rows[start : start + together]
        prompts = [row["prompt"] or list(prompt_of(row, tokenizer)) for row in part]
        said = batch_generate(model, tokenizer, prompts, max_tokens=request["max_tokens"])
        for row, prompt, text in zip(part, prompts, said.texts, strict=True):
            logits = model(mx.array([row["tokens"]]))[0, mx.array(row["positions"])]
            yield np.array(logits.astype(mx.float32)), prompt, text


def prompt_of(row: dict[str, Any], tokenizer: Any, **settings: Any) -> Any:
    """The prompt of `row` by a tokenizer of Transformers, or mlx-lm's wrapper of one."""
    return tokenizer.apply_chat_template(
        row["messages"], tools=row["tools"], add_generation_prompt=True, **row["template"], **settings
    )


def peft(request: dict[str, Any]) -> Iterator[Seen]:
    """PEFT on PyTorch: the adapter on the base from Transformers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        base, info = AutoModelForCausalLM.from_pretrained(
            request["model"], dtype="auto", output_loading_info=True
        )
        lost = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    except (ValueError, KeyError, RuntimeError) as error:  # it does not know the family
        base, lost = None, [type(error).__name__]
    if lost:
        sys.exit(
            f"o transformers não lê este modelo como o mlx-lm o escreve ({lost[0]}): exporte como «mlx» ou "
            "«fused»"
        )
    model = PeftModel.from_pretrained(base, request["adapter"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    for row in request["rows"]:
        prompt = row["prompt"] or prompt_of(row, tokenizer, return_dict=False)
        with torch.inference_mode():
            logits = model(torch.tensor([row["tokens"]])).logits[0, row["positions"]].float().numpy()
            ids = torch.tensor([prompt])
            said = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=request["max_tokens"],
                pad_token_id=tokenizer.eos_token_id,
            )
        yield logits, list(prompt), tokenizer.decode(said[0, len(prompt) :], skip_special_tokens=True)


def llama(request: dict[str, Any]) -> Iterator[Seen]:
    """llama.cpp through llama-cpp-python: its own tokenizer, and the chat template of the file."""
    from llama_cpp import Llama
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    room = max(len(row["tokens"]) for row in request["rows"]) + request["max_tokens"] + 8
    adapter = request.get("adapter")
    model = Llama(
        request["model"], n_ctx=room, n_batch=room, lora_path=adapter, logits_all=True, verbose=False
    )
    bos, eos = (model._model.token_get_text(token) for token in (model.token_bos(), model.token_eos()))
    template = Jinja2ChatFormatter(model.metadata["tokenizer.chat_template"], eos_token=eos, bos_token=bos)
    settings = {"temperature": 0.0, "repeat_penalty": 1.0, "max_tokens": request["max_tokens"]}
    for row in request["rows"]:
        if prompt := row["prompt"]:
            answer = model.create_completion(prompt, **settings)["choices"][0]["text"]
        else:
            text = template(messages=row["messages"], tools=row["tools"])
            prompt = model.tokenize(text.prompt.encode(), add_bos=not text.added_special, special=True)
            said = model.create_chat_completion(row["messages"], tools=row["tools"], **settings)
            answer = said["choices"][0]["message"]["content"]
        model.reset()
        model.eval(row["tokens"])
        yield np.array(model.scores[row["positions"]], np.float32), list(prompt), answer


def main(tool: str, request: str, answer: str) -> None:
    """Let `tool` answer what the file `request` asks; logits and texts go to the folder `answer`."""
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    said = []
    with open(Path(answer) / "logits", "wb") as logits:
        for seen, prompt, text in {"mlx": mlx, "peft": peft, "llama": llama}[tool](asked):
            logits.write(np.ascontiguousarray(seen, np.float32).data)
            said.append({"prompt": [int(token) for token in prompt], "answer": text})
            print("row", flush=True)
    (Path(answer) / "said.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
