// SPDX-License-Identifier: Apache-2.0
/// @file
/// Names and places of all parameters in one flat buffer. Optimizer, clipping and checkpoints see the buffer; the
/// model sees names.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mor {

/// Which optimizer settings a parameter follows.
enum class ParameterGroup {
  Main,       ///< trained with the schedule's learning rate, clipped together
  AuxRouter,  ///< auxiliary router: ten times the learning rate, clipped on its own (mor-spec 3.5)
  Frozen      ///< never touched by the optimizer (loss-free bias)
};

/// How a parameter starts.
enum class Initializer { Normal, Ones, Zeros };

/// One tensor, row-major [rows, cols] as PyTorch's [out, in]; vectors have `is_vector` and one row.
struct ParameterInfo {
  std::string name;
  Index rows = 0;
  Index cols = 0;
  Index offset = 0;  ///< first element in the flat buffer
  bool is_vector = false;
  bool decay = true;  ///< weight decay applies (not on norms)
  ParameterGroup group = ParameterGroup::Main;
  Initializer initializer = Initializer::Normal;

  [[nodiscard]] Index size() const { return rows * cols; }
};

/// The list of tensors in declaration order. Tensors declared one after another with the same number of columns are
/// adjacent in memory, so query, key and value weights form one fused matrix.
class ParameterLayout {
 public:
  /// Declares a matrix [rows, cols] and returns its index.
  Index add_matrix(std::string name, Index rows, Index cols, ParameterGroup group = ParameterGroup::Main) {
    return add({std::move(name), rows, cols, 0, false, true, group, Initializer::Normal});
  }
  /// Declares a norm weight [size]: starts at one, never decays.
  Index add_norm(std::string name, Index size) {
    return add({std::move(name), 1, size, 0, true, false, ParameterGroup::Main, Initializer::Ones});
  }
  /// Declares a vector [size] that no gradient trains: starts at zero.
  Index add_frozen_vector(std::string name, Index size) {
    return add({std::move(name), 1, size, 0, true, false, ParameterGroup::Frozen, Initializer::Zeros});
  }

  [[nodiscard]] std::vector<ParameterInfo> const& all() const { return infos_; }
  [[nodiscard]] ParameterInfo const& operator[](Index index) const { return infos_[static_cast<std::size_t>(index)]; }
  [[nodiscard]] Index count() const { return static_cast<Index>(infos_.size()); }
  /// Elements of the flat buffer.
  [[nodiscard]] Index total_size() const { return total_; }
  [[nodiscard]] bool contains(std::string const& name) const { return by_name_.count(name) != 0; }
  /// The tensor of that name; throws InvalidArgument when there is none.
  [[nodiscard]] ParameterInfo const& find(std::string const& name) const {
    auto const found = by_name_.find(name);
    if (found == by_name_.end()) {
      fail(ErrorCode::InvalidArgument, "no parameter has this name", "ParameterLayout", "a name of the layout", name);
    }
    return infos_[static_cast<std::size_t>(found->second)];
  }

 private:
  Index add(ParameterInfo info) {
    if (info.rows <= 0 || info.cols <= 0) {
      fail(ErrorCode::InvalidConfig, "a parameter has no elements", info.name, "positive sizes",
           text_of(info.rows) + " x " + text_of(info.cols));
    }
    if (!by_name_.emplace(info.name, count()).second) {
      fail(ErrorCode::InvalidConfig, "two parameters have the same name", info.name);
    }
    info.offset = total_;
    total_ += info.size();
    infos_.push_back(std::move(info));
    return count() - 1;
  }

  std::vector<ParameterInfo> infos_;
  std::unordered_map<std::string, Index> by_name_;
  Index total_ = 0;
};

}  // namespace mor
