//! Elementary functions on vectors, each element's result independent of its lane.

use super::vector::Vector;

/// e^x, to 2 ULP where the result is a normal number; 0 below -104, infinity above 88.73, NaN for NaN; exp(0) is 1.
///
/// Cephes `expf`: e^x = 2^n e^r with n = round(x log2 e), |r| <= ln 2 / 2, and a polynomial of degree 7 for e^r.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    let x = V::splat(-105.0).max(x);
    let x = V::splat(89.0).min(x);
    let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(V::splat(-0.693_359_4), x);
    let r = n.mul_add(V::splat(2.121_944_4e-4), r);
    let mut p = V::splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1] {
        p = p.mul_add(r, V::splat(c));
    }
    let p = p.mul_add(r.mul(r), r).add(V::splat(1.0));
    // In two factors, since 2^n alone may be no normal number.
    let half = n.mul(V::splat(0.5)).round();
    p.mul(half.exp2_of_integer()).mul(n.sub(half).exp2_of_integer())
}

/// 1 / (1 + e^-x), relative error below 5e-7.
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(x: V) -> V {
    let one = V::splat(1.0);
    one.div(one.add(exp(V::splat(0.0).sub(x))))
}

/// The hyperbolic tangent, relative error below 1e-6: Cephes `tanhf`, a polynomial near 0 and by e^x elsewhere.
#[inline(always)]
pub(crate) fn tanh<V: Vector>(x: V) -> V {
    let size = x.abs();
    let square = x.mul(x);
    let mut p = V::splat(-5.704_988_7e-3);
    for c in [2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1] {
        p = p.mul_add(square, V::splat(c));
    }
    let near = p.mul(square).mul_add(size, size);
    let e = exp(size.add(size));
    let far = V::splat(1.0).sub(V::splat(2.0).div(e.add(V::splat(1.0))));
    size.select_less(V::splat(0.625), near, far).copy_sign(x)
}

/// The error function, absolute error below 3e-7: a rational approximation on [-4, 4], beyond which erf is ±1 in f32.
#[inline(always)]
pub(crate) fn erf<V: Vector>(x: V) -> V {
    let x = V::splat(-4.0).max(x);
    let x = V::splat(4.0).min(x);
    let square = x.mul(x);
    let mut p = V::splat(-2.726_142_3e-10);
    for c in
        [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_4e-4, -2.954_599_8e-3, -1.609_603_3e-2]
    {
        p = p.mul_add(square, V::splat(c));
    }
    let mut q = V::splat(-1.456_607_2e-5);
    for c in [-2.133_740_5e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = q.mul_add(square, V::splat(c));
    }
    x.mul(p).div(q)
}
