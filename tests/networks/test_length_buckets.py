"""Training computes only what is visible, and learns what the plain way would have learned."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers_small import every_kind, network_and_rows

from geomiam.networks.blocks import drop, key_bias
from geomiam.networks.pooling import VisibleTokens, length_buckets


def plain_token(fusion, tokens, visible):
    """All tokens computed, hidden ones replaced by the mask vector, as in the papers."""
    return fusion.plain(tokens, visible)


def plain_group(fusion, tokens, visible):
    """All tokens of all groups computed, hidden keys taken out of attention and mean."""
    summaries = []
    for g, positions in enumerate(fusion.groups):
        x, group_visible = tokens[:, positions], visible[:, positions]
        for block in fusion.inner:
            x = block(x, key_bias(group_visible, x.dtype))
        weight = group_visible.unsqueeze(-1).float()
        mean = (x * weight).sum(1) / weight.sum(1).clamp(min=1)
        summaries.append(fusion.norm(mean) + fusion.identity[g])
    present = torch.stack([visible[:, positions].any(1) for positions in fusion.groups], 1)
    query = fusion.query.expand(len(tokens), 1, -1)
    x = torch.cat([query, torch.stack(summaries, 1)], 1)
    bias = key_bias(torch.cat([torch.ones_like(present[:, :1]), present], 1), x.dtype)
    for block in fusion.blocks:
        x = block(x, bias)
    return x[:, 0]


def plain_sum(fusion, tokens, visible):
    return fusion.read(torch.where(visible.unsqueeze(-1), tokens, fusion.hidden).sum(1))


def plain_late(fusion, tokens, visible):
    """Every branch over all of its tokens, hidden keys taken out of attention and mean."""
    features = []
    for branch, positions in zip(fusion.branches, fusion.sets):
        x, branch_visible = tokens[:, positions], visible[:, positions]
        for block in branch.blocks:
            x = block(x, key_bias(branch_visible, x.dtype))
        weight = branch_visible.unsqueeze(-1).float()
        mean = (x * weight).sum(1) / weight.sum(1).clamp(min=1)
        features.append(torch.relu(branch.norm(mean)))
    present = torch.stack([visible[:, positions].any(1) for positions in fusion.sets], 1).float()
    alpha = present / present.sum(1, keepdim=True).clamp(min=1)
    return torch.cat([*(a[:, None] * f for a, f in zip(alpha.unbind(1), features)), alpha], 1)


PLAIN = {"token": plain_token, "group": plain_group, "sum": plain_sum, "late": plain_late}


def example(fusion: str, **config):
    """A network in training whose weights are not small, and rows of every kind of token."""
    network, values, observed = network_and_rows(every_kind(), 50, fusion=fusion, **config)
    return network.train(), values, observed


def masks(kind: str, observed):
    """Tokens hidden with one probability, one per row, or by whole modalities of a batch."""
    generator = torch.Generator().manual_seed(2)
    n, t = observed.shape
    p = {
        "batch": torch.tensor(0.6),
        "sample": torch.rand(n, 1, generator=generator),
        "most": torch.tensor(0.97),
        "none": torch.tensor(0.0),
        "all": torch.tensor(1.0),
        "modality": (torch.arange(t) < 6).float(),
    }[kind]
    return observed & (torch.rand(n, t, generator=generator) >= p)


def gradients(network, logits):
    network.zero_grad()
    (logits.square().mean() + logits.sigmoid().mean()).backward()
    return {k: w.grad.clone() for k, w in network.named_parameters() if w.requires_grad}


@pytest.mark.parametrize("fusion", list(PLAIN))
@pytest.mark.parametrize("kind", ["batch", "sample", "most", "none", "all", "modality"])
@pytest.mark.parametrize("lengths", [16, 3])
def test_outputs_and_gradients_are_those_of_the_plain_way(fusion, kind, lengths, monkeypatch):
    monkeypatch.setattr("geomiam.networks.pooling.BUCKET_LENGTHS", lengths)
    network, values, observed = example(fusion)
    network_copy, visible = copy.deepcopy(network), masks(kind, observed)
    (member,) = network_copy.members
    tokens = torch.nan_to_num(network_copy.tokens(values, visible))
    expected = network_copy.head(member.activate(PLAIN[fusion](member.fusion, tokens, visible)))
    result = network(values, visible)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    plain = gradients(network_copy, expected)
    for name, gradient in gradients(network, result).items():
        scale = float(plain[name].abs().max().clamp(min=1))
        torch.testing.assert_close(
            gradient, plain[name], rtol=0, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("fusion", list(PLAIN))
@pytest.mark.parametrize("kind", ["modality", "all", "none"])
def test_every_weight_has_a_gradient_in_every_step(fusion, kind):
    """Zero, not absent: the optimizer and several processes need it."""
    network, values, observed = example(fusion)
    network(values, masks(kind, observed)).sum().backward()
    assert [k for k, w in network.named_parameters() if w.requires_grad and w.grad is None] == []


def test_hidden_tokens_are_not_made(monkeypatch):
    network, values, observed = example("group")
    tokenizers = network.members[0].tokenizers
    visible = masks("modality", observed)
    tokens = VisibleTokens.of(tokenizers, values, visible)
    start, expected = 0, 0
    for size in tokenizers.sizes:
        counts = visible[:, start : start + size].sum(0)
        expected += max(1, int(counts.max())) * size
        start += size
    assert len(tokens.vectors) == expected < 0.9 * visible.numel()


@pytest.mark.parametrize("t", [5, 40])
def test_buckets_hold_every_visible_token_once_and_little_else(t):
    visible = torch.rand(60, t, generator=torch.Generator().manual_seed(0)) < torch.rand(60, 1)
    visible[7] = False
    buckets = length_buckets(visible, device=torch.device("cpu"))
    times = torch.zeros_like(visible, dtype=torch.int)
    for bucket in buckets:
        full = torch.ones_like(bucket.index, dtype=torch.bool)
        bucket_visible = full if bucket.visible is None else bucket.visible
        for row, index, row_visible in zip(bucket.rows, bucket.index, bucket_visible):
            times[row, index[row_visible]] += 1
    assert torch.equal(times.bool(), visible) and int(times.max()) == 1
    assert sum(p.index.numel() for p in buckets) <= int(visible.sum()) + 60 * (-(-t // 16) - 1)
    assert 7 not in torch.cat([p.rows for p in buckets])


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("copies", [1, 9])
def test_dropout_keeps_the_mean_and_the_variance_of_as_many_tokens(share, copies):
    torch.manual_seed(0)
    x = drop(torch.ones(40_000, 3), share, copies=copies)
    sigma2 = share / (1 - share)
    torch.testing.assert_close(x.mean(0), torch.ones(3), atol=0.02, rtol=0)
    expected = torch.tensor([sigma2, sigma2, sigma2 / copies])
    torch.testing.assert_close(x.var(0), expected, atol=0, rtol=0.05)
    assert float((x[:, :2] == 0).float().mean()) == pytest.approx(share, abs=0.01)
    torch.manual_seed(0)
    assert torch.equal(x, drop(torch.ones(40_000, 3), share, copies=copies))
