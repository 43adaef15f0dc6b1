// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a model stores: its tensors, the further names under which official checkpoints repeat them (mor-spec
/// section 11), and how a checkpoint that may hold one copy or all of them is checked and loaded.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/error.hpp"
#include "mor/core/layer_schedule.hpp"
#include "mor/core/parameter_layout.hpp"
#include "mor/core/tensor_source.hpp"
#include "mor/core/types.hpp"
#include "mor/model/tensor_names.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mor {

inline constexpr std::string_view embedding_name = "model.embed_tokens.weight";
inline constexpr std::string_view head_name = "lm_head.weight";

/// The names of a decoder layer's tensors behind its prefix.
inline constexpr std::array<std::string_view, 9> layer_suffixes{
    "input_layernorm.weight",  "self_attn.q_proj.weight", "self_attn.k_proj.weight",
    "self_attn.v_proj.weight", "self_attn.o_proj.weight", "post_attention_layernorm.weight",
    "mlp.gate_proj.weight",    "mlp.up_proj.weight",      "mlp.down_proj.weight"};

/// A model's tensors without the model: what a conversion needs to know of either side.
struct ModelTensors {
  ModelConfig config;
  LayerSchedule schedule;
  LayerNaming naming = LayerNaming::Unrolled;
  ParameterLayout layout;
};

/// For each tensor of the layout, its other names in official checkpoints: one a further layer that uses the same
/// weights, in execution order, and `lm_head.weight` for a tied embedding.
[[nodiscard]] inline std::vector<std::vector<std::string>> tensor_aliases(ModelTensors const& model) {
  std::vector<std::vector<std::string>> aliases(static_cast<std::size_t>(model.layout.count()));
  auto const prefixes = layer_prefixes(model.naming, model.schedule);
  auto const sets = model.schedule.unrolled();
  std::unordered_set<Index> named;
  for (std::size_t first = 0; first < sets.size(); ++first) {
    if (!named.insert(sets[first]).second) continue;
    for (std::string_view const suffix : layer_suffixes) {
      std::string const own = prefixes[first] + std::string(suffix);
      for (Index i = 0; i < model.layout.count(); ++i) {
        if (model.layout[i].name != own) continue;
        for (std::size_t later = first + 1; later < sets.size(); ++later) {
          if (sets[later] == sets[first]) {
            aliases[static_cast<std::size_t>(i)].push_back(prefixes[later] + std::string(suffix));
          }
        }
      }
    }
  }
  if (model.config.transformer.tie_word_embeddings && model.layout.count() > 0) {
    aliases.front().emplace_back(head_name);
  }
  return aliases;
}

/// What to write of a model's tensors: each once, or with `official_names` under every one of its names.
/// @return pairs of the name to write and the tensor of the layout that it holds
[[nodiscard]] inline std::vector<std::pair<std::string, std::string>> names_to_write(ModelTensors const& model,
                                                                                     bool official_names) {
  std::vector<std::pair<std::string, std::string>> names;
  auto const aliases = tensor_aliases(model);
  for (Index i = 0; i < model.layout.count(); ++i) {
    auto const& name = model.layout[i].name;
    names.emplace_back(name, name);
    if (!official_names) continue;
    for (auto const& alias : aliases[static_cast<std::size_t>(i)]) names.emplace_back(alias, name);
  }
  return names;
}

/// The shape that a tensor has in files.
[[nodiscard]] inline std::vector<Index> file_shape(ParameterInfo const& info) {
  return info.is_vector ? std::vector<Index>{info.cols} : std::vector<Index>{info.rows, info.cols};
}

/// A source that has been checked to hold exactly the tensors of a model.
class StoredModel {
 public:
  /// A tensor may be there under one of its names, or under all of them with the same bits; `lm_head.weight` of a tied
  /// model may be there or not. Rotary tables that old Llama checkpoints carry are ignored. All three must outlive
  /// this.
  /// @throws mor::error ShapeMismatch naming file and tensor: for one that is missing, unknown or of another shape, for
  ///         copies of which some are missing, for copies that differ; Unsupported where every attention weight does
  StoredModel(TensorSource const& source, ParameterLayout const& layout,
              std::vector<std::vector<std::string>> const& aliases)
      : source_(&source), layout_(&layout), aliases_(&aliases) {
    refuse_unknown();
    for (Index i = 0; i < layout.count(); ++i) stored_.push_back(check(i));
  }

  [[nodiscard]] TensorSource const& source() const { return *source_; }
  [[nodiscard]] ParameterLayout const& layout() const { return *layout_; }

  /// The name under which the source holds tensor `i` of the layout.
  [[nodiscard]] std::string const& stored_name(Index i) const { return stored_[static_cast<std::size_t>(i)]; }

  /// Hands every tensor to `sink(first element in the flat buffer, values)`, in pieces.
  void load(std::function<void(Index, std::span<float const>)> const& sink) const {
    std::vector<float> values;
    for (Index i = 0; i < layout_->count(); ++i) {
      auto const& info = (*layout_)[i];
      for (Index at = 0; at < info.size(); at += TensorSource::piece) {
        values.resize(static_cast<std::size_t>(std::min(TensorSource::piece, info.size() - at)));
        source_->read(stored_name(i), at, values);
        source_->release(stored_name(i));
        sink(info.offset + at, values);
      }
    }
  }

 private:
  void refuse_unknown() const {
    std::unordered_set<std::string> known;
    for (Index i = 0; i < layout_->count(); ++i) {
      known.insert((*layout_)[i].name);
      auto const& others = (*aliases_)[static_cast<std::size_t>(i)];
      known.insert(others.begin(), others.end());
    }
    for (auto const& name : source_->names()) {
      if (known.count(name) != 0 || name.ends_with(".rotary_emb.inv_freq")) continue;
      fail(ErrorCode::ShapeMismatch, "the model of config.json has no such tensor", source_->where(name),
           text_of(known.size()) + " names such as " + (*layout_)[std::min<Index>(1, layout_->count() - 1)].name,
           printable(name, 200));
    }
  }

  /// Which name to read tensor `i` by, after comparing its copies.
  [[nodiscard]] std::string check(Index i) const {
    auto const& info = (*layout_)[i];
    std::vector<std::string> there, absent;
    auto const& others = (*aliases_)[static_cast<std::size_t>(i)];
    if (source_->contains(info.name)) there.push_back(info.name);
    for (auto const& alias : others) (source_->contains(alias) ? there : absent).push_back(alias);
    if (there.empty()) fail(ErrorCode::ShapeMismatch, "the tensor is missing", source_->where(info.name));
    bool const own = there.front() == info.name;
    bool const some_of_many = there.size() > 1 && (!absent.empty() || !own);
    if (some_of_many) {
      fail(ErrorCode::ShapeMismatch, "some copies of a shared tensor are there and some are not",
           source_->where(there.front()), "all of its copies, or one alone",
           "no " + (own ? absent.front() : info.name));
    }
    for (auto const& copy : there) {
      auto const shape = source_->facts(copy).shape;
      if (shape != file_shape(info)) {
        fail(ErrorCode::ShapeMismatch, "wrong shape", source_->where(copy), shape_text(file_shape(info)),
             shape_text(shape));
      }
      if (&copy != &there.front() && !source_->same_bits(there.front(), copy)) refuse_copy(there.front(), copy);
    }
    return there.front();
  }

  /// Whether all four projections differ between two layers that should be one; a damaged file differs in a few places.
  [[nodiscard]] bool own_attention(std::string const& first, std::string const& copy) const {
    static constexpr std::string_view group = ".self_attn.";
    auto const cut = first.find(group), copy_cut = copy.find(group);
    if (cut == std::string::npos || copy_cut == std::string::npos) return false;
    for (std::string_view const suffix : layer_suffixes) {
      if (!suffix.starts_with(group.substr(1))) continue;
      std::string const a = first.substr(0, cut + 1) + std::string(suffix);
      std::string const b = copy.substr(0, copy_cut + 1) + std::string(suffix);
      if (!source_->contains(a) || !source_->contains(b) || source_->same_bits(a, b)) return false;
    }
    return true;
  }

  [[noreturn]] void refuse_copy(std::string const& first, std::string const& copy) const {
    std::string const expected = "the same bits as " + first;
    if (own_attention(first, copy)) {
      fail(ErrorCode::Unsupported,
           "recursions have attention of their own (untied attention, as the first release of the official code made "
           "it): another architecture, which this library does not compute",
           source_->where(copy), expected, "other weights");
    }
    fail(ErrorCode::ShapeMismatch, "copies of one shared tensor differ", source_->where(copy), expected, "others");
  }

  TensorSource const* source_;
  ParameterLayout const* layout_;
  std::vector<std::vector<std::string>> const* aliases_;
  std::vector<std::string> stored_;
};

}  // namespace mor
