// SPDX-License-Identifier: Apache-2.0
/// @file
/// `Pack`: as many numbers as one vector register holds, with the arithmetic of one number.
///
/// Loops over packs do the same operations in the same order on every compiler and at every optimisation level, and
/// the last, partial pack of a row goes through the same instructions as the others. So a row's result does not depend
/// on its address, on its neighbours or on the number of threads.
#pragma once

#include "mor/core/types.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mor::host {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

namespace detail {
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  using Integer = std::int32_t;
  typedef float Vector __attribute__((vector_size(kVectorBytes)));
  typedef std::int32_t IntegerVector __attribute__((vector_size(kVectorBytes)));
};
template <>
struct Lanes<double> {
  using Integer = std::int64_t;
  typedef double Vector __attribute__((vector_size(kVectorBytes)));
  typedef std::int64_t IntegerVector __attribute__((vector_size(kVectorBytes)));
};
}  // namespace detail

/// A register of T. Element-wise operators; a comparison gives a mask for `select`.
template <class T>
struct Pack {
  using Vector = typename detail::Lanes<T>::Vector;
  using Mask = typename detail::Lanes<T>::IntegerVector;
  static constexpr Index size = kVectorBytes / static_cast<Index>(sizeof(T));

  Vector v;

  Pack() = default;
  explicit Pack(Vector vector) : v(vector) {}
  template <class Number>
    requires(std::is_arithmetic_v<Number>)
  Pack(Number value) : v(static_cast<T>(value) - Vector{}) {}  // NOLINT: a number stands for a pack of it

  friend Pack operator+(Pack a, Pack b) { return Pack(a.v + b.v); }
  friend Pack operator-(Pack a, Pack b) { return Pack(a.v - b.v); }
  friend Pack operator*(Pack a, Pack b) { return Pack(a.v * b.v); }
  friend Pack operator/(Pack a, Pack b) { return Pack(a.v / b.v); }
  friend Pack operator-(Pack a) { return Pack(-a.v); }
  Pack& operator+=(Pack other) { return *this = *this + other; }
  Pack& operator*=(Pack other) { return *this = *this * other; }
};

namespace detail {
using Floats = Lanes<float>::Vector;
using Doubles = Lanes<double>::Vector;

// fuse: a * b + c in one rounding where the processor has such an instruction, else in two. larger, smaller: one
// instruction where compilers do not find it by themselves.
// square_root: one instruction, without the error number of the standard function.
#if defined(__AVX512F__)
inline Floats square_root(Floats x) { return _mm512_maskz_sqrt_ps(0xffff, x); }
inline Doubles square_root(Doubles x) { return _mm512_maskz_sqrt_pd(0xff, x); }
#elif defined(__AVX__)
inline Floats square_root(Floats x) { return _mm256_sqrt_ps(x); }
inline Doubles square_root(Doubles x) { return _mm256_sqrt_pd(x); }
#elif defined(__SSE2__)
inline Floats square_root(Floats x) { return _mm_sqrt_ps(x); }
inline Doubles square_root(Doubles x) { return _mm_sqrt_pd(x); }
#elif defined(__aarch64__)
inline Floats square_root(Floats x) { return reinterpret_cast<Floats>(vsqrtq_f32(reinterpret_cast<float32x4_t>(x))); }
inline Doubles square_root(Doubles x) { return reinterpret_cast<Doubles>(vsqrtq_f64(reinterpret_cast<float64x2_t>(x))); }
#else
template <class Vector>
inline Vector square_root(Vector x) {
  for (std::size_t lane = 0; lane < sizeof(Vector) / sizeof(x[0]); ++lane) x[lane] = std::sqrt(x[lane]);
  return x;
}
#endif
#if defined(__AVX512F__)
inline Floats fuse(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Doubles fuse(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
#elif defined(__FMA__)
inline Floats fuse(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Doubles fuse(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
#elif defined(__aarch64__)
inline Floats fuse(Floats a, Floats b, Floats c) {
  return reinterpret_cast<Floats>(
      vfmaq_f32(reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)));
}
inline Doubles fuse(Doubles a, Doubles b, Doubles c) {
  return reinterpret_cast<Doubles>(
      vfmaq_f64(reinterpret_cast<float64x2_t>(c), reinterpret_cast<float64x2_t>(a), reinterpret_cast<float64x2_t>(b)));
}
#else
template <class Vector>
inline Vector fuse(Vector a, Vector b, Vector c) {
  return a * b + c;
}
#endif
#if defined(__AVX__) && !defined(__AVX512F__)  // with AVX-512 compilers do find it, and GCC 12 warns of its intrinsics
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(b, a); }
inline Doubles larger(Doubles a, Doubles b) { return _mm256_max_pd(b, a); }
inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Doubles smaller(Doubles a, Doubles b) { return _mm256_min_pd(a, b); }
#else
template <class Vector>
inline Vector larger(Vector a, Vector b) {
  return a < b ? b : a;
}
template <class Vector>
inline Vector smaller(Vector a, Vector b) {
  return a < b ? a : b;
}
#endif
}  // namespace detail

/// a * b + c. Spelt out, because compilers fuse the plain expression in one loop and not in another, and sums that should
/// be equal would then differ in their last bits.
template <class T>
[[nodiscard]] inline Pack<T> multiply_add(Pack<T> a, Pack<T> b, Pack<T> c) {
  return Pack<T>(detail::fuse(a.v, b.v, c.v));
}

template <class T>
[[nodiscard]] inline Pack<T> load(T const* source) {
  Pack<T> result;
  std::memcpy(&result.v, source, sizeof(result.v));
  return result;
}

template <class T>
inline void store(T* target, Pack<T> pack) {
  std::memcpy(target, &pack.v, sizeof(pack.v));
}

/// The first `count` < size lanes from memory, `filler` in the others.
template <class T>
[[nodiscard]] inline Pack<T> load_partial(T const* source, Index count, T filler = T(0)) {
  Pack<T> result(filler);
  std::memcpy(&result.v, source, static_cast<std::size_t>(count) * sizeof(T));
  return result;
}

template <class T>
inline void store_partial(T* target, Index count, Pack<T> pack) {
  std::memcpy(target, &pack.v, static_cast<std::size_t>(count) * sizeof(T));
}

/// The larger of each pair: a < b ? b : a, so NaN in `b` is lost and NaN in `a` is kept.
template <class T>
[[nodiscard]] inline Pack<T> larger(Pack<T> a, Pack<T> b) {
  return Pack<T>(detail::larger(a.v, b.v));
}

/// The smaller of each pair: a < b ? a : b, so NaN in `a` is lost and NaN in `b` is kept.
template <class T>
[[nodiscard]] inline Pack<T> smaller(Pack<T> a, Pack<T> b) {
  return Pack<T>(detail::smaller(a.v, b.v));
}

/// Sum of the lanes: halves are folded onto each other, always in this order.
template <class T>
[[nodiscard]] inline T sum_of(Pack<T> pack) {
  T lanes[Pack<T>::size];
  store(lanes, pack);
  for (Index width = Pack<T>::size / 2; width > 0; width /= 2) {
    for (Index i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

template <class T>
[[nodiscard]] inline T largest_of(Pack<T> pack) {
  T lanes[Pack<T>::size];
  store(lanes, pack);
  T result = lanes[0];
  for (Index i = 1; i < Pack<T>::size; ++i) result = result < lanes[i] ? lanes[i] : result;
  return result;
}

/// a where the mask is set, else b.
template <class T>
[[nodiscard]] inline Pack<T> select(typename Pack<T>::Mask mask, Pack<T> a, Pack<T> b) {
  return Pack<T>(mask ? a.v : b.v);
}

/// e^x for floats, relative error below 2 units in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for
/// e^r, and n - 1 added to its exponent before a doubling, which overflows as it should. Infinity above 88.72, 0 where the
/// result is below 2^-124, NaN for NaN.
[[nodiscard]] inline Pack<float> exp(Pack<float> x) {
  using P = Pack<float>;
  using Bits = P::Mask;
  using Words [[gnu::vector_size(sizeof(P::Vector))]] = std::uint32_t;  // exponents of what underflows wrap around
  x = smaller(P(89.0F), x);
  P const shift(12582911.0F);  // 1.5 * 2^23 - 1: adding it rounds to an integer n and leaves n - 1 in the low bits
  P const shifted = multiply_add(x, P(1.44269504088896341F), shift);
  P const n = shifted - shift;
  P r = multiply_add(n, P(-0.693145751953125F), x);
  r = multiply_add(n, P(-1.428606765330187045e-06F), r);
  // Powers in pairs (Estrin's scheme): the chain of operations that wait for each other is what costs time here.
  P const square = r * r;
  P const low = multiply_add(P(1.6666665459e-1F), r, P(5.0000001201e-1F));
  P const middle = multiply_add(P(8.3334519073e-3F), r, P(4.1665795894e-2F));
  P const high = multiply_add(P(1.9875691500e-4F), r, P(1.3981999507e-3F));
  P const series = multiply_add(multiply_add(high, square, middle), square, low);
  P const p = multiply_add(series, square, r) + P(1.0F);
  P const half(std::bit_cast<P::Vector>(std::bit_cast<Words>(p.v) + (std::bit_cast<Words>(shifted.v) << 23)));
  Bits const result = std::bit_cast<Bits>((half + half).v);
  Bits const too_small = x.v < P(-86.29F).v, not_a_number = x.v != x.v;
  return P(std::bit_cast<P::Vector>((result & ~too_small) | not_a_number));  // all bits set are a NaN
}

/// Applies a function of one number to each lane.
template <class T, class F>
[[nodiscard]] inline Pack<T> by_lane(Pack<T> pack, F function) {
  T lanes[Pack<T>::size];
  store(lanes, pack);
  for (T& lane : lanes) lane = function(lane);
  return load(lanes);
}

[[nodiscard]] inline Pack<double> exp(Pack<double> x) {
  return by_lane(x, [](double lane) { return std::exp(lane); });
}

/// The error function to an absolute error of 5e-7: Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26.
[[nodiscard]] inline Pack<float> erf(Pack<float> x) {
  using P = Pack<float>;
  P const magnitude = larger(x, -x);
  P const t = P(1.0F) / multiply_add(P(0.3275911F), magnitude, P(1.0F));
  P series = multiply_add(P(1.061405429F), t, P(-1.453152027F));
  series = multiply_add(series, t, P(1.421413741F));
  series = multiply_add(series, t, P(-0.284496736F));
  series = multiply_add(series, t, P(0.254829592F));
  P const value = P(1.0F) - series * t * exp(-(x * x));
  return select(x.v < P(0.0F).v, -value, value);
}

[[nodiscard]] inline Pack<double> erf(Pack<double> x) {
  return by_lane(x, [](double lane) { return std::erf(lane); });
}

template <class T>
[[nodiscard]] inline Pack<T> sqrt(Pack<T> x) {
  return Pack<T>(detail::square_root(x.v));
}

namespace detail {
/// One exchange of a transpose: the blocks of `Half` lanes at odd places of `a` change places with those at even places
/// of `b`.
template <Index Half, class T, std::size_t... Lane>
inline void exchange_blocks(Pack<T>& a, Pack<T>& b, std::index_sequence<Lane...>) {
  constexpr std::size_t size = sizeof...(Lane), half = static_cast<std::size_t>(Half);
  auto const upper = __builtin_shufflevector(a.v, b.v, ((Lane & half) != 0 ? size + Lane - half : Lane)...);
  auto const lower = __builtin_shufflevector(a.v, b.v, ((Lane & half) != 0 ? size + Lane : Lane + half)...);
  a = Pack<T>(upper);
  b = Pack<T>(lower);
}

template <Index Half, class T>
inline void transpose_blocks(Pack<T>* rows) {
  if constexpr (Half > 0) {
    constexpr Index size = Pack<T>::size;
#pragma GCC unroll 16
    for (Index i = 0; i < size; ++i) {
      if ((i & Half) == 0) {
        exchange_blocks<Half>(rows[i], rows[i + Half], std::make_index_sequence<static_cast<std::size_t>(size)>{});
      }
    }
    transpose_blocks<Half / 2>(rows);
  }
}
}  // namespace detail

/// Transposes the square of Pack::size packs: lane j of row i becomes lane i of row j.
template <class T>
inline void transpose(Pack<T>* rows) {
  detail::transpose_blocks<Pack<T>::size / 2>(rows);
}

}  // namespace mor::host
