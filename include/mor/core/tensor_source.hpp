// SPDX-License-Identifier: Apache-2.0
/// @file
/// `TensorSource`: named tensors that can be read in pieces, wherever they come from: one file, several, another
/// format, or a conversion of other tensors. Loading, converting and writing are built on it.
#pragma once

#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mor {

/// Element type and shape of a tensor, outermost dimension first, row-major; an empty shape is a scalar.
struct TensorFacts {
  DType dtype = DType::F32;
  std::vector<Index> shape;

  /// Unsigned in between: a dimension of zero may come after others whose product has 64 bits.
  [[nodiscard]] Index elements() const {
    std::uint64_t count = 1;
    for (Index const dimension : shape) count *= static_cast<std::uint64_t>(dimension);
    return static_cast<Index>(count);
  }
};

/// `[2, 3]`, for messages.
[[nodiscard]] inline std::string shape_text(std::vector<Index> const& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

/// A set of named tensors. It is read by one thread at a time.
class TensorSource {
 public:
  /// How many elements loaders take at once: 1 MB of float.
  static constexpr Index piece = Index{1} << 18;

  virtual ~TensorSource() = default;
  TensorSource() = default;
  TensorSource(TensorSource const&) = delete;
  TensorSource& operator=(TensorSource const&) = delete;

  /// Every tensor, in a fixed order.
  [[nodiscard]] virtual std::vector<std::string> names() const = 0;
  /// Nothing when there is no such tensor.
  [[nodiscard]] virtual std::optional<TensorFacts> find(std::string_view name) const = 0;
  /// What errors call it: the file or folder.
  [[nodiscard]] virtual std::string label() const = 0;
  /// The elements from `first` on, as many as `into` has places. The tensor exists, and has them.
  /// @throws mor::error ShapeMismatch unless it is F64, F32, F16 or BF16; widening is exact, F64 rounds to nearest
  virtual void read(std::string_view name, Index first, std::span<float> into) const = 0;
  /// The tensor will not be read again soon: memory that caches it may go.
  virtual void release(std::string_view) const {}
  /// The place of a tensor, for messages: `FILE: tensor "NAME"`.
  [[nodiscard]] virtual std::string where(std::string_view name) const {
    return label() + ": tensor " + printable(name, 200);
  }

  [[nodiscard]] bool contains(std::string_view name) const { return find(name).has_value(); }

  /// @throws mor::error ShapeMismatch when there is no such tensor
  [[nodiscard]] TensorFacts facts(std::string_view name) const {
    auto found = find(name);
    if (!found) fail(ErrorCode::ShapeMismatch, "the tensor is missing", where(name));
    return *std::move(found);
  }

  /// Whether two tensors have the same type, shape and bits. Both exist.
  [[nodiscard]] virtual bool same_bits(std::string_view a, std::string_view b) const {
    TensorFacts const first = facts(a), second = facts(b);
    if (first.dtype != second.dtype || first.shape != second.shape) return false;
    std::vector<float> left, right;
    for (Index at = 0; at < first.elements(); at += piece) {
      left.resize(static_cast<std::size_t>(std::min(piece, first.elements() - at)));
      right.resize(left.size());
      read(a, at, left);
      read(b, at, right);
      auto const same = [](float x, float y) {
        return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
      };
      if (!std::equal(left.begin(), left.end(), right.begin(), same)) return false;
    }
    return true;
  }
};

/// Looks at every value of a floating-point tensor.
/// @throws mor::error NonFinite naming the tensor and the first element that is infinite or not a number
inline void demand_finite(TensorSource const& source, std::string_view name) {
  Index const elements = source.facts(name).elements();
  std::vector<float> values;
  for (Index at = 0; at < elements; at += TensorSource::piece) {
    values.resize(static_cast<std::size_t>(std::min(TensorSource::piece, elements - at)));
    source.read(name, at, values);
    source.release(name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isfinite(values[i])) continue;
      fail(ErrorCode::NonFinite, "a weight is not finite", source.where(name),
           "a finite number at element " + std::to_string(at + static_cast<Index>(i)), text_of(values[i]));
    }
  }
}

}  // namespace mor
