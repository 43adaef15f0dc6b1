// SPDX-License-Identifier: Apache-2.0
/// @file
/// Model files of llama2.c (`stories15M.bin` and the like) as a `TensorSource` with the names and the rotary layout of
/// a Hugging Face Llama model. Both float versions are read: the old one, which begins with the configuration, and
/// version 1, which begins with "ak42".
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/config_check.hpp"
#include "mor/core/error.hpp"
#include "mor/core/tensor_source.hpp"
#include "mor/core/types.hpp"
#include "mor/io/mapped_file.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::io {

/// An open llama2.c model. Its size has been checked against its configuration, so every tensor lies inside the file.
class Llama2cFile final : public TensorSource {
 public:
  /// @throws mor::error IoFailure; MalformedFile naming the byte, InvalidConfig naming the field of a configuration
  /// that
  ///         cannot work; Unsupported for a quantised file
  explicit Llama2cFile(std::filesystem::path const& path) : label_(path.string()), mapping_(path) {
    bytes_ = mapping_.bytes();
    open();
  }
  /// The same for bytes in memory, which must outlive this.
  Llama2cFile(std::span<std::byte const> bytes, std::string label) : label_(std::move(label)), bytes_(bytes) { open(); }

  /// The model. What the file does not say is llama2.c's own: RMSNorm 1e-5, RoPE base 10,000, tokens 1 and 2 that begin
  /// and end a text.
  [[nodiscard]] ModelConfig const& config() const noexcept { return config_; }

  [[nodiscard]] std::string label() const override { return label_; }
  [[nodiscard]] std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (auto const& [name, tensor] : tensors_) names.push_back(name);
    return names;
  }
  [[nodiscard]] std::optional<TensorFacts> find(std::string_view name) const override {
    auto const place = tensors_.find(name);
    if (place == tensors_.end()) return std::nullopt;
    return TensorFacts{DType::F32, place->second.shape};
  }
  void read(std::string_view name, Index first, std::span<float> into) const override {
    auto const place = tensors_.find(name);
    if (place == tensors_.end()) fail(ErrorCode::ShapeMismatch, "the tensor is missing", where(name));
    Tensor const& tensor = place->second;
    if (!tensor.rotary) {
      copy(tensor.at + static_cast<std::size_t>(first) * 4, into);
      return;
    }
    Index const columns = tensor.shape[1];
    while (!into.empty()) {
      Index const row = first / columns, column = first % columns;
      auto const part = into.first(std::min(into.size(), static_cast<std::size_t>(columns - column)));
      copy(tensor.at + static_cast<std::size_t>(file_row(row) * columns + column) * 4, part);
      into = into.subspan(part.size());
      first += static_cast<Index>(part.size());
    }
  }

 private:
  static constexpr std::uint32_t magic = 0x616b3432;  // "ak42", as a number of the machine that wrote it
  static constexpr std::size_t old_header_bytes = 28, new_header_bytes = 256;

  struct Tensor {
    std::vector<Index> shape;
    std::size_t at = 0;   ///< byte of the file
    bool rotary = false;  ///< rows of a head are in another order
  };

  /// llama2.c turns the pairs (2i, 2i + 1) of a head, Hugging Face the pairs (i, i + half).
  [[nodiscard]] Index file_row(Index row) const {
    Index const size = config_.transformer.head_dim, half = size / 2, inner = row % size;
    return row - inner + (inner < half ? 2 * inner : 2 * (inner - half) + 1);
  }

  void copy(std::size_t at, std::span<float> into) const {
    if (!into.empty()) std::memcpy(into.data(), bytes_.data() + at, into.size_bytes());
  }

  [[nodiscard]] std::int32_t number(std::size_t at) const {
    std::int32_t value = 0;
    std::memcpy(&value, bytes_.data() + at, 4);
    return value;
  }

  [[noreturn]] void refuse(std::size_t at, std::string what, std::string expected, std::string got,
                           ErrorCode code = ErrorCode::MalformedFile) const {
    fail(code, std::move(what), label_ + ": byte " + std::to_string(at), std::move(expected), std::move(got));
  }

  void open() {
    demand_bytes(old_header_bytes);
    bool const versioned = static_cast<std::uint32_t>(number(0)) == magic;
    if (versioned) {
      demand_bytes(new_header_bytes);
      if (number(4) != 1) {
        refuse(4, "a version of llama2.c's format that this library does not read", "1, unquantised",
               std::to_string(number(4)), ErrorCode::Unsupported);
      }
    }
    bool const shared_head = read_config(versioned ? 8 : 0, versioned);
    check(config_, label_);
    std::size_t const end = versioned ? place_version_1(shared_head) : place_old(shared_head);
    if (end != bytes_.size()) {
      refuse(std::min(end, bytes_.size()), "the file's size does not fit its configuration",
             std::to_string(end) + " bytes", std::to_string(bytes_.size()));
    }
  }

  void demand_bytes(std::size_t least) const {
    if (bytes_.size() < least) {
      refuse(0, "too short for a llama2.c model", "at least " + std::to_string(least) + " bytes",
             std::to_string(bytes_.size()));
    }
  }

  /// Seven numbers from byte `at` on. Returns whether the output matrix is the embedding.
  [[nodiscard]] bool read_config(std::size_t at, bool versioned) {
    static constexpr std::array<char const*, 7> fields{"dim",        "hidden_dim", "n_layers",   "n_heads",
                                                       "n_kv_heads", "vocab_size", "max_seq_len"};
    std::array<Index, 7> values{};
    for (std::size_t i = 0; i < 7; ++i) {
      values[i] = number(at + 4 * i);
      bool const sign_is_a_flag = i == 5 && !versioned;
      if (values[i] == 0 || (values[i] < 0 && !sign_is_a_flag)) {
        refuse(at + 4 * i, std::string("not a size in field ") + fields[i], "a number above 0",
               std::to_string(values[i]));
      }
    }
    bool shared_head = values[5] > 0;
    if (versioned) {
      auto const flag = static_cast<unsigned char>(bytes_[at + 28]);
      if (flag > 1) refuse(at + 28, "not a flag in field shared_classifier", "0 or 1", std::to_string(flag));
      shared_head = flag == 1;
    }
    if (values[0] % values[3] != 0) {
      refuse(at + 12, "n_heads does not divide dim", "a divisor of " + std::to_string(values[0]),
             std::to_string(values[3]));
    }
    auto& t = config_.transformer;
    t.hidden_size = values[0];
    t.intermediate_size = values[1];
    config_.num_hidden_layers = values[2];
    t.num_attention_heads = values[3];
    t.num_key_value_heads = values[4];
    t.vocab_size = std::abs(values[5]);
    t.max_position_embeddings = values[6];
    t.head_dim = values[0] / values[3];
    t.rms_norm_eps = 1e-5;
    t.rope_theta = 10000.0;
    t.tie_word_embeddings = shared_head;
    t.bos_token_id = t.vocab_size > 1 ? 1 : 0;
    t.eos_token_id = t.vocab_size > 2 ? 2 : -1;
    return shared_head;
  }

  /// Lays out one tensor of each layer, layer after layer. Sizes have been checked: no product exceeds 64 bits.
  void place_layers(std::size_t& at, char const* suffix, std::vector<Index> const& shape, bool rotary = false) {
    for (Index l = 0; l < config_.num_hidden_layers; ++l) {
      place(at, "model.layers." + std::to_string(l) + "." + suffix, shape, rotary);
    }
  }
  void place(std::size_t& at, std::string name, std::vector<Index> const& shape, bool rotary = false) {
    Index elements = 1;
    for (Index const dimension : shape) elements *= dimension;
    tensors_.emplace(std::move(name), Tensor{shape, at, rotary});
    at += static_cast<std::size_t>(elements) * 4;
  }

  [[nodiscard]] std::size_t place_old(bool shared_head) {
    auto const& t = config_.transformer;
    Index const d = t.hidden_size, queries = t.query_size(), keys = t.key_value_size(), ffn = t.intermediate_size;
    std::size_t at = old_header_bytes;
    place(at, "model.embed_tokens.weight", {t.vocab_size, d});
    place_layers(at, "input_layernorm.weight", {d});
    place_layers(at, "self_attn.q_proj.weight", {queries, d}, true);
    place_layers(at, "self_attn.k_proj.weight", {keys, d}, true);
    place_layers(at, "self_attn.v_proj.weight", {keys, d});
    place_layers(at, "self_attn.o_proj.weight", {d, queries});
    place_layers(at, "post_attention_layernorm.weight", {d});
    place_layers(at, "mlp.gate_proj.weight", {ffn, d});
    place_layers(at, "mlp.down_proj.weight", {d, ffn});
    place_layers(at, "mlp.up_proj.weight", {ffn, d});
    place(at, "model.norm.weight", {d});
    // Two tables of angles, which follow from the base.
    at += static_cast<std::size_t>(t.max_position_embeddings * t.head_dim) * 4;
    if (!shared_head) place(at, "lm_head.weight", {t.vocab_size, d});
    return at;
  }

  [[nodiscard]] std::size_t place_version_1(bool shared_head) {
    auto const& t = config_.transformer;
    Index const d = t.hidden_size, queries = t.query_size(), keys = t.key_value_size(), ffn = t.intermediate_size;
    std::size_t at = new_header_bytes;
    place_layers(at, "input_layernorm.weight", {d});
    place_layers(at, "post_attention_layernorm.weight", {d});
    place(at, "model.norm.weight", {d});
    place(at, "model.embed_tokens.weight", {t.vocab_size, d});
    place_layers(at, "self_attn.q_proj.weight", {queries, d}, true);
    place_layers(at, "self_attn.k_proj.weight", {keys, d}, true);
    place_layers(at, "self_attn.v_proj.weight", {keys, d});
    place_layers(at, "self_attn.o_proj.weight", {d, queries});
    place_layers(at, "mlp.gate_proj.weight", {ffn, d});
    place_layers(at, "mlp.down_proj.weight", {d, ffn});
    place_layers(at, "mlp.up_proj.weight", {ffn, d});
    if (!shared_head) place(at, "lm_head.weight", {t.vocab_size, d});
    return at;
  }

  std::string label_;
  MappedFile mapping_;
  std::span<std::byte const> bytes_;
  ModelConfig config_;
  std::map<std::string, Tensor, std::less<>> tensors_;
};

}  // namespace mor::io
