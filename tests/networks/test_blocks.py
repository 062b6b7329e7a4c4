"""The transformer block against plain formulas, with and without dropout."""

from __future__ import annotations

import pytest
import torch

from geomiam.networks.blocks import TransformerBlock


def attention_by_hand(block, x, bias):
    """Pre-norm attention of every head as written in Vaswani et al. (2017), then the residual."""
    width = x.shape[-1]
    y = block.norm_attention(x)
    q = block.query(y)
    k, v = block.key_value(y).chunk(2, -1)
    heads = []
    for h in range(block.heads):
        part = slice(h * width // block.heads, (h + 1) * width // block.heads)
        scores = q[..., part] @ k[..., part].mT / (width / block.heads) ** 0.5
        heads.append((scores + bias[:, 0]).softmax(-1) @ v[..., part])
    return x + block.out(torch.cat(heads, -1))


@pytest.mark.parametrize("dropout", [0.0, 1e-7])
def test_attention_is_its_formula_with_and_without_dropout(dropout):
    """Dropout takes another road through the code, and a tiny share changes nothing visible."""
    torch.manual_seed(0)
    block = TransformerBlock(16, 4, dropout).train()
    x, bias = torch.randn(3, 5, 16), torch.randn(3, 1, 1, 5) * 2
    attention = block.attend(x, *block.project(x), bias=bias)
    torch.testing.assert_close(attention, attention_by_hand(block, x, bias), rtol=1e-4, atol=1e-5)


def test_dropout_keeps_the_expected_value_of_attention():
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, 0.3)
    x, bias = torch.randn(1, 4, 8), torch.randn(1, 1, 1, 4)
    with torch.no_grad():
        sure = block.eval().attend(x, *block.project(x), bias=bias)
        big = x.expand(20_000, -1, -1), bias.expand(20_000, -1, -1, -1)
        block.train()
        mean = block.attend(big[0], *block.project(big[0]), bias=big[1]).mean(0)
    torch.testing.assert_close(mean, sure[0], rtol=0, atol=0.02)


def test_the_feed_forward_layer_has_four_thirds_of_the_width():
    assert TransformerBlock(192, 8, 0.0).forward_in.out_features == 256
