"""GELU and its derivative, in three variants of different precision."""

import os

import triton
import triton.language as tl

ERF = 0  # fp32: exact
POLYNOMIAL = 1  # for fp16: Abramowitz and Stegun 26.2.17, |error| < 7.5e-8
TANH = 2  # for bf16: the GPU's tanh, |error| < 3.5e-4, a tenth of bf16's rounding

_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _fitted_tanh(x):
    """2 Phi(x) - 1 for the normal distribution Phi, as tanh of a fitted polynomial."""
    u = tl.minimum(x * x, 25.0)
    z = x * (0.797590327 + u * (0.0369464542 + u * -0.000343832584))
    if _INTERPRETED:
        y = 2 / (1 + tl.exp(-2 * z)) - 1
    else:
        y = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;",
            "=f,f",
            [z],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    return y


@triton.jit
def normal(x, GELU: tl.constexpr):
    """Phi(x), the normal distribution function, and exp(-x^2 / 2)."""
    e = tl.exp2(x * x * -0.7213475204444817)
    if GELU == 0:
        p = 0.5 + 0.5 * tl.erf(x * 0.7071067811865476)
    elif GELU == 2:
        p = 0.5 + 0.5 * _fitted_tanh(x)
    else:
        v = 1.0 + 0.2316419 * tl.abs(x)
        t = tl.rsqrt(v * v)  # 1 / v in one instruction of the GPU
        q = 0.5307027145 * t - 0.7265760135
        q = q * t + 0.7107068705
        q = q * t - 0.142248368
        q = q * t + 0.1274147959
        q = q * t * e
        p = tl.where(x > 0, 1.0 - q, q)
    return p, e


@triton.jit
def gelu(x, GELU: tl.constexpr):
    """gelu(x) = x Phi(x), elementwise in fp32."""
    if GELU == 0:
        y = x * (0.5 + 0.5 * tl.erf(x * 0.7071067811865476))
    elif GELU == 2:
        half = 0.5 * x
        y = half + half * _fitted_tanh(x)
    else:
        p, _ = normal(x, GELU)
        y = x * p
    return y


@triton.jit
def gelu_and_slope(x, GELU: tl.constexpr):
    """gelu(x) and its derivative Phi(x) + x phi(x), elementwise in fp32."""
    p, e = normal(x, GELU)
    return x * p, p + x * e * 0.3989422804014327
