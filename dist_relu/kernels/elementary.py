"""Elementary functions that loops can be vectorised over: straight-line code, no tables, no calls.

The functions of `math` are calls into the C library, one number at a time. These are polynomials after a reduction of
the argument, within 2 units in the last place of float32 and 1e-15 relative of float64, for all arguments in their
domain: NaN goes through, infinities give limits, nothing overflows on the way, denormals come out right.

The polynomials are minimax approximations by Remez' exchange in arithmetic of 50 digits, one for each precision; in the
comment beside each is the function that it stands for, the interval, and its largest errors.
"""

from __future__ import annotations

from dist_relu.kernels.jit import scalar
from dist_relu.kernels.llvm import copysign, fma, polynomial, power_of_two

# (eʳ - 1 - r) / r², |r| <= 0.3469 (a little over ln 2 / 2); absolute errors 6e-8 and 1.4e-18.
_exp_tail = polynomial(
    single=[0.5, 0.16666576, 0.041666374, 0.008363236, 0.0013941219],
    double=[
        0.5,
        0.1666666666666667,
        0.041666666666666685,
        0.008333333333326082,
        0.001388888888887429,
        0.00019841269875003773,
        2.4801587347591545e-05,
        2.7557255168352456e-06,
        2.7557252672159105e-07,
        2.5105313336916906e-08,
        2.0921669819335872e-09,
    ],
)

# (2 artanh s - 2s) / s³ as a function of s², s² <= 1/9; absolute errors 2.8e-7 and 2.3e-18.
_artanh_tail = polynomial(
    single=[0.6666664, 0.40007782, 0.2823128, 0.2688361],
    double=[
        0.6666666666666666,
        0.399999999999995,
        0.28571428571606783,
        0.22222222197464997,
        0.1818181994318364,
        0.1538454244341996,
        0.1333520978709759,
        0.11733884263086694,
        0.10848201215432124,
        0.0747933142305004,
        0.156536559323749,
    ],
)

# (a + 4) Φ(-a) exp(a²/2) as a function of q = (a - 4) / (a + 4), 0 <= a <= 15 and 39; relative errors 9e-9 and 2e-17.
# The change of variable is that of Shepherd and Laframboise (1981).
_normal_tail = polynomial(
    single=[
        0.75528514,
        -0.60789657,
        0.3871369,
        -0.18652366,
        0.06040349,
        -0.0075240047,
        -0.0035102116,
        0.0015684083,
        0.00017466006,
        -0.00013419589,
    ],
    double=[
        0.7552851304157515,
        -0.6078966419718921,
        0.3871374007422195,
        -0.18652185795966542,
        0.060396574890666306,
        -0.0075401889664352085,
        -0.0034796923616075563,
        0.0016308184532808398,
        0.0001333442485304123,
        -0.00023109490372523792,
        -1.907844008906864e-06,
        3.514456971748505e-05,
        7.149756413993109e-07,
        -5.920011406549958e-06,
        -6.252286941858246e-07,
        1.021857469565231e-06,
        2.641549248784988e-07,
        -1.5659240090260527e-07,
        -7.721075755053977e-08,
        1.606943475790578e-08,
        1.4619201884389285e-08,
        -3.39092249383824e-10,
        -1.196582644233416e-09,
    ],
)

# 1.5·2^m with m bits of mantissa: adding it to a number rounds to whole, and leaves that in the low bits of the word.
_shift = polynomial(single=[1.5 * 2**23], double=[1.5 * 2**52])

# Where eˣ is 0, and what 2ⁿ is lifted by, so that it is not: the power of two, and as a part of the shift.
_lowest = polynomial(single=[-104.0], double=[-746.0])
_lifted_shift = polynomial(single=[1.5 * 2**23 + 64], double=[1.5 * 2**52 + 512])
_unlift = polynomial(single=[2.0**-64], double=[2.0**-512])


@scalar
def clamp(x: float, lowest: float, highest: float) -> float:
    """x, at least `lowest` and at most `highest`."""
    return lowest if x < lowest else (highest if x > highest else x)


@scalar
def _reduced_expm1(x: float, n: float) -> float:
    """eʳ - 1 for r = x - n ln 2, with ln 2 in two parts for the sake of its last digits."""
    r = fma(n, 2.121944400546905827679e-4, fma(n, -0.693359375, x))
    return fma(r * r, _exp_tail(r), r)  # type: ignore[no-any-return]


@scalar
def exp(x: float) -> float:
    """eˣ for x <= 0, which is all that activations need; garbage above 40."""
    x = _lowest(x) if x < _lowest(x) else x
    shifted = fma(x, 1.4426950408889634, _lifted_shift(x))
    e = 1.0 + _reduced_expm1(x, shifted - _lifted_shift(x))
    return e * power_of_two(shifted) * _unlift(x)  # type: ignore[no-any-return]


@scalar
def expm1(x: float) -> float:
    """eˣ - 1 for x <= 0."""
    x = -40.0 if x < -40.0 else x
    shifted = fma(x, 1.4426950408889634, _shift(x))
    scale = power_of_two(shifted)
    return fma(_reduced_expm1(x, shifted - _shift(x)), scale, scale - 1.0)  # type: ignore[no-any-return]


@scalar
def log1p(u: float) -> float:
    """ln(1 + u) for 0 <= u <= 1: 2 artanh(u / (2 + u))."""
    s = u / (2.0 + u)
    square = s * s
    return fma(s * square, _artanh_tail(square), 2.0 * s)  # type: ignore[no-any-return]


@scalar
def tanh(x: float) -> float:
    """(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)."""
    e = expm1(-2.0 * abs(x))
    return copysign(e / (2.0 + e), x)  # type: ignore[no-any-return]


@scalar
def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ)."""
    e = exp(-abs(x))
    return (e if x < 0.0 else 1.0) / (1.0 + e)


@scalar
def _gauss(x: float) -> float:
    """exp(-x²/2)."""
    a = abs(x)
    a = 39.0 if a > 39.0 else a
    half = 0.5 * a
    exponent = half * a
    lost = fma(half, a, -exponent)  # the rounding of a large exponent would cost several digits
    e = exp(-exponent)
    return fma(-e, lost, e)  # type: ignore[no-any-return]


@scalar
def normal_density(x: float) -> float:
    """φ(x) = exp(-x²/2) / √2π."""
    return 0.3989422804014327 * _gauss(x)


@scalar
def normal_cdf(x: float) -> float:
    """Φ(x) = (1 + erf(x/√2)) / 2, with all digits in the lower tail too."""
    a = abs(x)
    w = 1.0 / ((39.0 if a > 39.0 else a) + 4.0)
    tail: float = _gauss(x) * w * _normal_tail(fma(-8.0, w, 1.0))
    return tail if x < 0.0 else 1.0 - tail
