// SPDX-License-Identifier: Apache-2.0
#include "mor/io/file.hpp"
#include "mor/io/llama2c.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

using mor::ErrorCode;
using mor::Index;
using mor::io::Llama2cFile;

namespace {

using Numbers = std::array<std::int32_t, 7>;

std::string text_of_numbers(std::vector<std::int32_t> const& numbers) {
  std::string text(numbers.size() * 4, '\0');
  std::memcpy(text.data(), numbers.data(), text.size());
  return text;
}

/// A file of the old version: dim 8, hidden 4, 2 layers, 2 heads, 1 key/value head, 3 tokens, context 5. Float i of the
/// data has the value i.
std::string old_file(Numbers const& numbers = {8, 4, 2, 2, 1, 3, 5},
                     std::size_t floats = 24 + 2 * (16 + 192 + 96) + 8 + 20) {
  std::string text = text_of_numbers({numbers.begin(), numbers.end()});
  for (std::size_t i = 0; i < floats; ++i) {
    auto const value = static_cast<float>(i);
    text.append(reinterpret_cast<char const*>(&value), 4);
  }
  return text;
}

/// The header of version 1 with a flag for the shared head, without data.
std::string new_header(std::int32_t version, Numbers const& numbers, char flag) {
  std::vector<std::int32_t> all{0x616b3432, version};
  all.insert(all.end(), numbers.begin(), numbers.end());
  std::string text = text_of_numbers(all) + flag;
  text.resize(256, '\0');
  return text;
}

Llama2cFile open(std::string const& text) {
  return Llama2cFile(std::as_bytes(std::span<char const>(text.data(), text.size())), "m.bin");
}

}  // namespace

TEST_CASE("a llama2.c file gives its configuration, and tensors under Hugging Face's names and rotary order") {
  std::string const text = old_file();
  Llama2cFile const file = open(text);
  auto const& t = file.config().transformer;
  REQUIRE(t.hidden_size == 8);
  REQUIRE(t.intermediate_size == 4);
  REQUIRE(file.config().num_hidden_layers == 2);
  REQUIRE(t.num_attention_heads == 2);
  REQUIRE(t.num_key_value_heads == 1);
  REQUIRE(t.head_dim == 4);
  REQUIRE(t.vocab_size == 3);
  REQUIRE(t.max_position_embeddings == 5);
  REQUIRE(t.tie_word_embeddings);
  REQUIRE(file.names().size() == 2 + 2 * 9);
  REQUIRE(file.facts("model.layers.1.self_attn.k_proj.weight").shape == std::vector<Index>{4, 8});
  // Embedding 24 floats, input norms 16, then query of layer 0. Rows of a head come in pairs there.
  std::vector<float> query(64), part(3);
  file.read("model.layers.0.self_attn.q_proj.weight", 0, query);
  for (Index const row : {0, 1, 2, 3, 4, 5, 6, 7}) {
    std::array<Index, 8> const file_row{0, 2, 1, 3, 4, 6, 5, 7};
    for (Index column = 0; column < 8; ++column) {
      REQUIRE(query[static_cast<std::size_t>(row * 8 + column)] ==
              static_cast<float>(40 + file_row[static_cast<std::size_t>(row)] * 8 + column));
    }
  }
  file.read("model.layers.0.self_attn.q_proj.weight", 15, part);
  REQUIRE(part == std::vector<float>{query[15], query[16], query[17]});
  file.read("model.layers.1.input_layernorm.weight", 2, part);
  REQUIRE(part == std::vector<float>{34.0F, 35.0F, 36.0F});
}

TEST_CASE("a malformed llama2.c file is refused with byte, field, expected and got") {
  struct Malformed {
    std::string bytes;
    std::string message;
    ErrorCode code = ErrorCode::MalformedFile;
  };
  Numbers const good{8, 4, 2, 2, 1, 3, 5};
  auto const with = [&](std::size_t place, std::int32_t value) {
    Numbers numbers = good;
    numbers[place] = value;
    return old_file(numbers);
  };
  std::vector<Malformed> const cases{
      {"", "byte 0: too short for a llama2.c model (expected at least 28 bytes, got 0)"},
      {std::string(27, 'x'), "byte 0: too short for a llama2.c model (expected at least 28 bytes, got 27)"},
      {std::string(28, '\0'), "byte 0: not a size in field dim (expected a number above 0, got 0)"},
      {with(0, -8), "byte 0: not a size in field dim (expected a number above 0, got -8)"},
      {with(1, 0), "byte 4: not a size in field hidden_dim"},
      {with(2, -1), "byte 8: not a size in field n_layers"},
      {with(3, 0), "byte 12: not a size in field n_heads"},
      {with(4, 0), "byte 16: not a size in field n_kv_heads"},
      {with(5, 0), "byte 20: not a size in field vocab_size"},
      {with(6, -5), "byte 24: not a size in field max_seq_len"},
      {with(3, 3), "byte 12: n_heads does not divide dim (expected a divisor of 8, got 3)"},
      {with(3, 8), "field head_dim: out of range", ErrorCode::InvalidConfig},
      {with(4, 3), "field num_key_value_heads: out of range", ErrorCode::InvalidConfig},
      {with(2, 2000), "field num_hidden_layers: out of range", ErrorCode::InvalidConfig},
      {with(0, 0x7ffffffe), "field hidden_size: out of range", ErrorCode::InvalidConfig},
      {with(5, 2147483647), "the file's size does not fit its configuration"},
      {with(5, -3), "byte 2668: the file's size does not fit its configuration (expected 2764 bytes, got 2668)"},
      {with(6, 6), "the file's size does not fit its configuration (expected 2684 bytes, got 2668)"},
      {old_file().substr(0, 2667), "byte 2667: the file's size does not fit its configuration"},
      {old_file() + "x", "byte 2668: the file's size does not fit its configuration (expected 2668 bytes, got 2669)"},
      {text_of_numbers({0x616b3432, 1, 0, 0, 0, 0, 0}), "expected at least 256 bytes, got 28"},
      {new_header(2, good, 1), "byte 4: a version of llama2.c's format", ErrorCode::Unsupported},
      {new_header(-1, good, 1), "expected 1, unquantised, got -1", ErrorCode::Unsupported},
      {new_header(1, good, 2), "byte 36: not a flag in field shared_classifier (expected 0 or 1, got 2)"},
      {new_header(1, {8, 4, 2, 2, 1, -3, 5}, 1), "byte 28: not a size in field vocab_size"},
      {new_header(1, good, 1),
       "byte 256: the file's size does not fit its configuration (expected 2816 bytes, got 256)"}};
  for (Malformed const& item : cases) {
    CAPTURE(item.message);
    auto const failure = mor::test::failure_of([&] { (void)open(item.bytes).names(); });
    REQUIRE(failure);
    INFO(failure->message);
    CHECK(failure->message.starts_with("m.bin: "));
    CHECK(failure->message.find(item.message) != std::string::npos);
    CHECK(failure->code == item.code);
  }
}

TEST_CASE("every truncation of a llama2.c file is refused") {
  std::string const good = old_file();
  for (std::size_t length = 0; length < good.size(); length += length < 64 ? 1 : 97) {
    REQUIRE(mor::test::failure_of([&] { (void)open(good.substr(0, length)).names(); }));
  }
}

TEST_CASE("a published llama2.c model is read from its file") {
  auto const data = mor::test::test_data();
  if (!data || !std::filesystem::exists(*data / "models" / "stories260K.bin")) SKIP("no models/stories260K.bin");
  Llama2cFile const file(*data / "models" / "stories260K.bin");
  REQUIRE(file.config().transformer.vocab_size == 512);
  REQUIRE(file.config().num_hidden_layers == 5);
  REQUIRE(file.names().size() == 47);
}
