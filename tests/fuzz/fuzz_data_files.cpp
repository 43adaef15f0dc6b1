// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of the files that data comes in. The first byte says which: token shards are the tokens that lie in them,
/// texts and JSON lines are documents that are found again from any one on, tasks have options and a right one; or
/// there is a mor::error.
#include "mor/eval/task.hpp"
#include "mor/train/document_reader.hpp"
#include "mor/train/token_source.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

void demand(bool holds) {
  if (!holds) std::abort();
}

/// A file in memory that holds these bytes.
std::filesystem::path file_with(std::string_view bytes) {
  static int const file = ::memfd_create("fuzz", 0);
  demand(file >= 0 && ::ftruncate(file, 0) == 0);
  demand(::pwrite(file, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  return "/proc/self/fd/" + std::to_string(file);
}

void read_shard(std::string_view bytes) {
  std::vector<std::filesystem::path> const paths(2, file_with(bytes));
  constexpr mor::Index vocab_size = 60000;
  auto const tokens = mor::train::TokenSource::from_shards(paths, vocab_size);  // the same shard twice
  std::size_t const data = bytes.size() - 1024, count = static_cast<std::size_t>(tokens.size()) / 2;
  demand(count == 0 || data % count == 0);
  std::vector<mor::Token> all(2 * count);
  tokens.copy(0, all);
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t const width = data / count;
    std::uint32_t stored = 0;
    std::memcpy(&stored, bytes.data() + 1024 + i * width, width);
    demand(all[i] >= 0 && all[i] < vocab_size && all[i] == all[count + i]);
    demand(static_cast<std::uint32_t>(all[i]) == stored);
  }
}

void read_documents(std::string_view bytes, int format) {
  mor::train::DocumentRules rules;
  rules.format = static_cast<mor::train::DocumentFormat>(format);
  rules.separator = "##";
  mor::train::DocumentReader reader(file_with(bytes), rules), again(reader.path(), rules);
  mor::Index end = 0;
  while (auto const document = reader.next()) {
    demand(document->begin >= end && reader.position() <= reader.size());
    end = reader.position();
    demand(document->begin + static_cast<mor::Index>(document->bytes.size()) <= end);
    again.seek(document->begin);
    demand(again.next()->bytes == document->bytes && again.position() == end);
    try {
      static_cast<void>(reader.content(*document));
    } catch (mor::error const&) {
      demand(*rules.format == mor::train::DocumentFormat::JsonLines);
    }
  }
}

void read_task(std::string_view text, int kind) {
  auto const wanted = kind == 3 ? std::nullopt : std::optional(static_cast<mor::eval::TaskKind>(kind));
  auto const task = mor::eval::parse_task(text, "fuzz", wanted);
  demand(!task.examples.empty() && (!wanted || task.kind == *wanted));
  for (auto const& example : task.examples) {
    bool const single = task.kind == mor::eval::TaskKind::LastWord;
    demand(single ? example.options.size() == 1 : example.options.size() >= 2);
    demand(example.gold >= 0 && example.gold < static_cast<mor::Index>(example.options.size()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view const bytes(reinterpret_cast<char const*>(data) + 1, size - 1);
  int const kind = data[0] % 4;
  try {
    switch (data[0] / 4 % 3) {
      case 0: read_shard(bytes); break;
      case 1: read_documents(bytes, kind); break;
      default: read_task(bytes, kind);
    }
  } catch (mor::error const&) {
  }
  return 0;
}
