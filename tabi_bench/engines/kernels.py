"""Triton kernels for short queries: what lies between the weights and the answer, in as few launches as possible.

At batch 1 every launch costs about as much as the work that it starts. A layer of BERT is seven launches here, twelve
and more in PyTorch; embeddings with their layer norm and the mask are one, pooling and head one, and the decision one.

Matrix products are tiled for few rows (the weights are read once): every program reads a strip of weights, with several
loads in flight, and all rows of x from the cache. From `MANY` rows on they are the library's, GELU in its epilogue.
Rows of a batch (B, L) lie one after the other; those of a packed one have no padding between them (`Rows`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

ROWS = 16  # the least number of rows that a matrix product of the hardware has
MANY = 80  # rows from which on the library's matrix products are faster
TILED = 256  # rows from which on attention has tiles enough for all of the device's processors, and takes large ones


@triton.jit
def _linear(x, weight, bias, out, m_rows, n_out, n_in, GELU: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
            BK: tl.constexpr, EVEN: tl.constexpr):  # fmt: skip
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    m = tl.program_id(1) * BM + tl.arange(0, BM)
    k = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, n_in, BK):
        at = start + k
        if EVEN:
            strip = tl.load(weight + n[None, :] * n_in + at[:, None])
            rows = tl.load(x + m[:, None] * n_in + at[None, :], mask=m[:, None] < m_rows, other=0.0)
        else:
            inside = at < n_in
            strip = tl.load(
                weight + n[None, :] * n_in + at[:, None], mask=inside[:, None] & (n[None, :] < n_out), other=0.0
            )
            rows = tl.load(x + m[:, None] * n_in + at[None, :], mask=(m[:, None] < m_rows) & inside[None, :], other=0.0)
        total = tl.dot(rows, strip, total, input_precision="ieee")
    total += tl.load(bias + n, mask=n < n_out, other=0.0).to(tl.float32)[None, :]
    if GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    inside = (m[:, None] < m_rows) & (n[None, :] < n_out)
    tl.store(out + m[:, None] * n_out + n[None, :], total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _attention(qkv, mask, starts, bias, out, length, width, scale, longest, PACKED: tl.constexpr, BIASED: tl.constexpr,
               D: tl.constexpr, BL: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """One program per head, block of rows and query; all keys at once. bias: (heads, longest, longest) where BIASED.

    PACKED: query b has the rows from starts[b] to starts[b + 1], and none of them is padding.
    """
    first = tl.program_id(0) * D
    row = tl.program_id(2) * length
    if PACKED:
        row = tl.load(starts + tl.program_id(2))
        length = tl.load(starts + tl.program_id(2) + 1) - row
        if tl.program_id(1) * BM >= length:
            return
    qkv += row * 3 * width
    out += row * width
    m = tl.program_id(1) * BM + tl.arange(0, BM)
    j, d = tl.arange(0, BL), tl.arange(0, D)
    stride = 3 * width
    q = tl.load(qkv + m[:, None] * stride + first + d[None, :], mask=m[:, None] < length, other=0.0)
    keys = tl.load(qkv + j[None, :] * stride + width + first + d[:, None], mask=j[None, :] < length, other=0.0)
    scores = tl.dot(q, keys, input_precision="ieee") * scale
    if BIASED:
        inside = (m[:, None] < length) & (j[None, :] < length)
        at = (tl.program_id(0) * longest + m[:, None]) * longest + j[None, :]
        scores += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    if not PACKED:
        scores += tl.load(mask + row + j, mask=j < length, other=0.0).to(tl.float32)[None, :]
    scores = tl.where(j[None, :] < length, scores, float("-inf"))
    odds = tl.exp(scores - tl.max(scores, 1)[:, None])
    odds = odds / tl.sum(odds, 1)[:, None]
    values = tl.load(qkv + j[:, None] * stride + 2 * width + first + d[None, :], mask=j[:, None] < length, other=0.0)
    mixed = tl.dot(odds.to(values.dtype), values, input_precision="ieee")
    tl.store(out + m[:, None] * width + first + d[None, :], mixed.to(out.dtype.element_ty), mask=m[:, None] < length)


@triton.jit
def _norm(values, gain, shift, h, inside, width, eps):
    mean = tl.sum(tl.where(inside, values, 0.0)) / width
    centred = tl.where(inside, values - mean, 0.0)
    spread = tl.rsqrt(tl.sum(centred * centred) / width + eps)
    scale = tl.load(gain + h, mask=inside, other=0.0).to(tl.float32)
    return centred * spread * scale + tl.load(shift + h, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _add_norm(x, residual, gain, shift, out, width, eps, BH: tl.constexpr):
    row = tl.program_id(0) * width
    h = tl.arange(0, BH)
    inside = h < width
    values = tl.load(x + row + h, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(residual + row + h, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + h, _norm(values, gain, shift, h, inside, width, eps).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _embed(ids, types, keep, word, place, kind, gain, shift, out, mask, width, length, eps, lowest, first,
           PACKED: tl.constexpr, TYPED: tl.constexpr, BH: tl.constexpr):  # fmt: skip
    """PACKED: `keep` holds every token's place in its query, and there is no mask."""
    i = tl.program_id(0)
    at = i % length
    if PACKED:
        at = tl.load(keep + i)
    h = tl.arange(0, BH)
    inside = h < width
    values = tl.load(word + tl.load(ids + i) * width + h, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(place + (at + first) * width + h, mask=inside, other=0.0).to(tl.float32)
    if TYPED:
        values += tl.load(kind + tl.load(types + i) * width + h, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        out + i * width + h, _norm(values, gain, shift, h, inside, width, eps).to(out.dtype.element_ty), mask=inside
    )
    if not PACKED:
        hidden = tl.where(tl.load(keep + i) > 0, 0.0, lowest)
        tl.store(mask + i, hidden.to(mask.dtype.element_ty))


@triton.jit
def _mean_head(hidden, keep, weight, bias, out, length, width, n_out, PACKED: tl.constexpr, BL: tl.constexpr,
               BH: tl.constexpr, BN: tl.constexpr):  # fmt: skip
    """Every program averages anew: the hidden states are in the cache. PACKED: `keep` holds the starts of queries."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    query = tl.program_id(1)
    row = query * length
    if PACKED:
        row = tl.load(keep + query)
        length = tl.load(keep + query + 1) - row
    hidden += row * width
    out += query * n_out
    h = tl.arange(0, BH)
    pooled, count = tl.zeros((BH,), tl.float32), 0.0
    for start in range(0, length, BL):
        i = start + tl.arange(0, BL)
        kept = i < length
        if not PACKED:
            kept = tl.load(keep + row + i, mask=kept, other=0) > 0
        inside = kept[:, None] & (h[None, :] < width)
        states = tl.load(hidden + i[:, None] * width + h[None, :], mask=inside, other=0.0).to(tl.float32)
        pooled += tl.sum(states, 0)
        count += tl.sum(kept.to(tl.float32))
    pooled = pooled / count
    inside = (n[:, None] < n_out) & (h[None, :] < width)
    rows = tl.load(weight + n[:, None] * width + h[None, :], mask=inside, other=0.0).to(tl.float32)
    logits = tl.sum(rows * pooled[None, :], 1) + tl.load(bias + n, mask=n < n_out, other=0.0).to(tl.float32)
    tl.store(out + n, logits, mask=n < n_out)


@triton.jit
def _decide(logits, temperature, out, n_out, BN: tl.constexpr):
    """out: label, largest probability (NaN if a logit is not finite), logits, probabilities."""
    n = tl.arange(0, BN)
    inside = n < n_out
    z = tl.load(logits + n, mask=inside, other=float("-inf"))
    broken = tl.sum(tl.where(inside, z * 0.0, 0.0))  # NaN from NaN and from both infinities
    label = tl.argmax(z, 0, tie_break_left=True)
    odds = tl.exp((z - tl.max(z, 0)) / tl.load(temperature).to(tl.float32))
    odds = tl.where(inside, odds, 0.0)
    odds = odds / tl.sum(odds)
    tl.store(out, label.to(tl.float32))
    tl.store(out + 1, tl.max(odds, 0) + broken)
    tl.store(out + 2 + n, z, mask=inside)
    tl.store(out + 2 + n_out + n, odds, mask=inside)


@dataclass(frozen=True)
class Rows:
    """Which of R rows are whose: B queries of `longest` rows, or from row starts[b] (B + 1,) to starts[b + 1].

    longest: no query has more; mask: (R,) additive, where queries are padded.
    """

    queries: int
    longest: int
    mask: torch.Tensor | None = None
    starts: torch.Tensor | None = None


def _power(n: int, least: int = ROWS) -> int:
    return max(least, triton.next_power_of_2(n))


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, gelu: bool = False) -> torch.Tensor:
    """(R, n_out) of x (R, n_in), weight (n_out, n_in); with GELU behind it.

    GELU is the exact one, but in half precision from `MANY` rows on: the library's epilogue has the approximation by
    tanh, which is off by at most 5e-4, less than such numbers are rounded by.
    """
    (rows, n_in), n_out = x.shape, len(weight)
    if rows >= MANY:
        if gelu and x.dtype != torch.float32:
            return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
        product = torch.addmm(bias, x, weight.t())
        return torch.nn.functional.gelu(product) if gelu else product
    out = x.new_empty(rows, n_out)
    tile = tiling(rows, n_out, n_in)
    even = n_in % tile["BK"] == 0 and n_out % tile["BN"] == 0
    grid = (triton.cdiv(n_out, tile["BN"]), triton.cdiv(rows, tile["BM"]))
    _linear[grid](x, weight, bias, out, rows, n_out, n_in, GELU=gelu, EVEN=even, **tile)
    return out


def tiling(rows: int, n_out: int, n_in: int) -> dict[str, int]:
    """Tile sizes and depth of prefetching for a product of few rows: the fastest found on an H100 at 32 rows."""
    tile = {"BM": min(_power(rows), 64), "num_warps": 4}
    if n_in >= 768 and n_out <= n_in:  # narrow strips, or too few programs read the weights
        return tile | {"BN": 8, "BK": 512 if n_in % 512 == 0 else 256, "num_stages": 3}
    if n_in >= 768:
        return tile | {"BN": 32, "BK": 128, "num_stages": 6}
    return tile | {"BN": 16, "BK": min(128, _power(n_in)), "num_stages": 4}


def attention(qkv: torch.Tensor, rows: Rows, heads: int, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(R, H) attention within each query of qkv (R, 3H). bias: (1, heads, >= L, >= L) by position."""
    count, width = len(qkv), qkv.shape[1] // 3
    out = qkv.new_empty(count, width)
    size, many = width // heads, count >= TILED and rows.longest <= 128
    tile = min(64, _power(rows.longest)) if many else ROWS
    grid = (heads, triton.cdiv(rows.longest, tile), rows.queries)
    mask, starts, table = (qkv if part is None else part for part in (rows.mask, rows.starts, bias))
    _attention[grid](
        qkv, mask, starts, table, out, rows.longest, width, size**-0.5, 0 if bias is None else bias.shape[-1],
        PACKED=rows.starts is not None, BIASED=bias is not None, D=size, BL=_power(rows.longest), BM=tile,
        num_warps=4 if tile == 64 else 2,
    )  # fmt: skip
    return out


def add_norm(x: torch.Tensor, residual: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    """LayerNorm(x + residual), (R, H)."""
    out, width = torch.empty_like(x), x.shape[1]
    _add_norm[(len(x),)](x, residual, norm.weight, norm.bias, out, width, norm.eps, BH=_power(width), num_warps=4)
    return out


def embed(
    embeddings: torch.nn.Module, ids: torch.Tensor, types: torch.Tensor, keep: torch.Tensor, first: int = 0
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Normalised embeddings (R, H) of ids, types and keep: (B, L) int64, with the additive mask (R,); or packed, (R,),
    where `keep` holds places, and without a mask.

    first: place of a query's first token. Without a table of types, `types` is not read.
    """
    word, norm = embeddings.word_embeddings.weight, embeddings.LayerNorm
    width, packed = word.shape[1], ids.ndim == 1
    rows = ids.numel()
    out, mask = word.new_empty(rows, width), None if packed else word.new_empty(rows)
    place, typed = embeddings.position_embeddings.weight, "token_type_embeddings" in embeddings._modules
    kind = embeddings.token_type_embeddings.weight if typed else place
    lowest = torch.finfo(word.dtype).min
    _embed[(rows,)](
        ids, types, keep, word, place, kind, norm.weight, norm.bias, out, out if mask is None else mask, width,
        ids.shape[-1], norm.eps, lowest, first, PACKED=packed, TYPED=typed, BH=_power(width), num_warps=4,
    )  # fmt: skip
    return out, mask


def mean_head(hidden: torch.Tensor, keep: torch.Tensor, head: torch.nn.Linear) -> torch.Tensor:
    """Logits (B, K) float32 of the means of hidden (R, H) over `keep` (B, L); or, packed, between starts (B + 1,)."""
    n_out, width = head.weight.shape
    packed = keep.ndim == 1
    queries, length = (len(keep) - 1, 0) if packed else keep.shape
    out = torch.empty(queries, n_out, dtype=torch.float32, device=hidden.device)
    tile = min(ROWS, _power(n_out, 2))
    _mean_head[(triton.cdiv(n_out, tile), queries)](
        hidden, keep, head.weight, head.bias, out, length, width, n_out,
        PACKED=packed, BL=ROWS, BH=_power(width), BN=tile, num_warps=8,
    )  # fmt: skip
    return out


def decide(logits: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """(2 + 2K,) float32: label, largest probability, logits, softmax(logits / T), for a temperature (1,)."""
    out = torch.empty(2 + 2 * len(logits), dtype=torch.float32, device=logits.device)
    _decide[(1,)](logits, temperature, out, len(logits), BN=_power(len(logits), 2), num_warps=1)
    return out
