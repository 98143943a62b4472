"""How an update is shared out; what processes say to each other is tried with real ones in `test_peers`."""

import numpy as np
import pytest

from farense_qlora.config import Config
from farense_qlora.data.batches import length_grouped_sampler, packed_sampler
from farense_qlora.training import ranks


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("packing", [False, True])
def test_shares_are_even_and_together_the_whole(
    monkeypatch: pytest.MonkeyPatch, count: int, packing: bool
) -> None:
    lengths = np.random.default_rng(0).integers(5, 40, 60)
    config = Config(batch_size=2, grad_accumulation_steps=4, max_seq_length=64)
    sampler = packed_sampler(config, lengths, True) if packing else length_grouped_sampler(config, lengths)
    monkeypatch.setattr(ranks, "size", lambda: count)
    for n in range(2 * sampler.updates_per_epoch):
        shares = []
        for rank in range(count):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            shares.append(ranks.share(sampler[n]))
        windows = [[tuple(rows) for micro_batch in share for rows in micro_batch] for share in shares]
        whole = [tuple(rows) for micro_batch in sampler[n] for rows in micro_batch]
        assert sorted(rows for share in windows for rows in share) == sorted(whole)
        assert max(map(len, windows)) - min(map(len, windows)) <= 1
        assert len({len(share) for share in shares}) == 1  # as many turns in each
