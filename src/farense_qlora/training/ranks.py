"""The processes that train one run together, as a rule one a computer, over `mx.distributed`.

All run the same loop in step and hold the same weights; their numbers, called ranks, tell them apart. What
decides something is a sum over all of them, or comes from the first, which alone has the run's folder: so all
decide alike. A process that nobody started together with others is alone: then nothing here costs anything,
or changes a bit.
"""

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ..data.batches import MicroBatch
from ..errors import DiskFullError, UserError
from .hosts import NAME, PLACES, RANK, PeerLost
from .requests import Requests

T = TypeVar("T")
SECONDS_TO_MEET = 60
BYTES_AT_ONCE = 64_000_000


@cache
def group() -> Any:
    """All processes, met at the first call; None when this one is alone. Raises `PeerLost` when one does not
    come."""
    if RANK not in os.environ:
        return None

    def given_up(*_: object) -> None:
        """MLX stops waiting for the others at a signal, and never else."""

    before = {number: signal.signal(number, given_up) for number in (signal.SIGALRM, signal.SIGCHLD)}
    signal.alarm(SECONDS_TO_MEET)
    try:
        return mx.distributed.init(strict=True, backend="ring" if "MLX_HOSTFILE" in os.environ else "any")
    except RuntimeError as error:
        raise PeerLost(str(error)) from error
    finally:
        signal.alarm(0)
        if PLACES in os.environ:
            Path(os.environ[PLACES]).unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def rank() -> int:
    """The number of this process; 0 is the first."""
    return group().rank() if group() else 0


def size() -> int:
    """How many processes there are."""
    return group().size() if group() else 1


def name() -> str:
    """What this process calls its computer."""
    return os.environ.get(NAME) or os.uname().nodename


def total(vector: mx.array) -> mx.array:
    """The sum of `vector` (n,) over all processes, evaluated, the same bits in each.

    Raises `PeerLost`. All must ask for the same in the same order: MLX checks neither kind nor length.
    """
    if size() == 1:
        return vector
    missing = max(0, size() - vector.size)  # MLX's ring does not sum less than a number for each process
    padded = mx.pad(vector, (0, missing))
    mx.eval(padded)  # by itself: Metal ends a command that waits for a network for more than 5 s
    try:
        # All but NCCL, which knows only the GPU, sum on the CPU.
        stream = None if "NCCL_HOST_IP" in os.environ else mx.cpu
        summed = mx.distributed.all_sum(padded, group=group(), stream=stream)
        mx.eval(summed)
    except RuntimeError as error:
        raise PeerLost(str(error)) from error
    return summed[: vector.size]


def each(numbers: Sequence[float]) -> np.ndarray:
    """The `numbers` (n,) of every process: an array (processes, n)."""
    slots = np.zeros((size(), len(numbers)), np.float32)
    slots[rank()] = numbers
    return np.array(total(mx.array(slots.reshape(-1)))).reshape(slots.shape)


def said(text: str) -> list[str]:
    """What each process says, in their order."""
    if size() == 1:
        return [text]
    own = np.frombuffer(text.encode(), np.uint8)
    ends = [0, *accumulate(each([len(own)])[:, 0].astype(int).tolist())]
    letters = np.zeros(ends[-1], np.uint8)
    letters[ends[rank()] : ends[rank() + 1]] = own
    whole = np.array(total(mx.array(letters)))
    return [bytes(whole[start:end]).decode() for start, end in pairwise(ends)]


def first(compute: Callable[[], T]) -> T:
    """What `compute()` gives in the first process, through JSON, in all; also the `UserError` that it raises.
    It must not ask anything of the others."""
    if size() == 1:
        return compute()
    answer: dict[str, Any] = {}
    if rank() == 0:
        try:
            answer = {"value": compute()}
        except UserError as error:
            answer = {"error": str(error), "full": isinstance(error, DiskFullError)}
    answer = json.loads(said(json.dumps(answer))[0])
    if "error" in answer:
        raise (DiskFullError if answer["full"] else UserError)(answer["error"])
    return answer["value"]


def everywhere(compute: Callable[[], T]) -> T:
    """`compute()` in every process; the `UserError` of one is raised in all, with its computer's name. It
    must not ask anything of the others."""
    if size() == 1:
        return compute()
    wrong = ""
    try:
        value = compute()
    except UserError as error:
        wrong = f"{name()}: {error}"
    if found := next(filter(None, said(wrong)), None):
        raise UserError(found)
    return value


def spread(data: bytes) -> bytes:
    """`data` as the first process has it; the others give none."""
    if size() == 1:
        return data
    length = int(said(str(len(data)))[0])
    parts = []
    for start in range(0, length, BYTES_AT_ONCE):
        part = np.zeros(min(BYTES_AT_ONCE, length - start), np.uint8)
        if rank() == 0:
            part[:] = np.frombuffer(data[start : start + len(part)], np.uint8)
        parts.append(bytes(np.array(total(mx.array(part)))))
    return b"".join(parts)


def agreed(tree: Any) -> Any:
    """The arrays of `tree` as they are in the first process, bit by bit."""
    if size() == 1:
        return tree
    mine = int(rank() == 0)

    def taken(array: mx.array) -> mx.array:
        return total(array.reshape(-1).view(mx.uint8) * mine).view(array.dtype).reshape(array.shape)

    # By name: a restored tree has another order than a new one, and one array would be taken for another.
    by_name = sorted(tree_flatten(tree), key=lambda pair: pair[0])
    return tree_unflatten([(name, taken(array)) for name, array in by_name])


def share(micro_batches: Sequence[MicroBatch]) -> list[MicroBatch]:
    """The windows that this process computes, at most as many at a time; of as many micro-batches in every
    process, the last of which may be empty."""
    if size() == 1:
        return list(micro_batches)
    windows, most = [window for one in micro_batches for window in one], max(map(len, micro_batches))
    turns = -(-len(windows) // (size() * most))
    mine = windows[rank() :: size()]
    return [mine[turn * most : (turn + 1) * most] for turn in range(turns)]


def heard_by_all(
    requests: Callable[[], Requests], stops: Callable[[], int]
) -> tuple[Callable[[], Requests], Callable[[], int]]:
    """The two as all hear them: what the first is asked for, and the stops that any is."""
    if size() == 1:
        return requests, stops
    return (
        lambda: Requests(**first(lambda: asdict(requests()))),
        lambda: int(each([stops()]).max()),
    )
