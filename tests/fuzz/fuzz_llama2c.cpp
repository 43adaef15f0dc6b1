// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of llama2.c model files: any bytes are a model whose every tensor can be read, or a mor::error.
#include "mor/io/llama2c.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  try {
    mor::io::Llama2cFile const file(std::as_bytes(std::span<std::uint8_t const>(data, size)), "fuzz");
    mor::Index total = 0;
    for (auto const& name : file.names()) {
      mor::Index const elements = file.facts(name).elements();
      total += elements;
      std::vector<float> values(static_cast<std::size_t>(elements));
      file.read(name, 0, values);
      file.read(name, elements / 3, std::span(values).first(static_cast<std::size_t>(elements - elements / 3)));
    }
    if (total * 4 > static_cast<mor::Index>(size)) std::abort();
  } catch (mor::error const&) {
  }
  return 0;
}
