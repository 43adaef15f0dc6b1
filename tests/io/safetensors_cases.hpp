// SPDX-License-Identifier: Apache-2.0
/// @file
/// Builds safetensors files, mostly bad ones, from their parts.
#pragma once

#include "mor/io/safetensors.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"

#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace mor::test {

[[nodiscard]] inline std::string little_endian(std::uint64_t value) {
  std::string text(8, '\0');
  std::memcpy(text.data(), &value, 8);
  return text;
}

/// A file of that header, with `data_bytes` zeros after it.
[[nodiscard]] inline std::string file_of(std::string const& header, std::size_t data_bytes = 0) {
  return little_endian(header.size()) + header + std::string(data_bytes, '\0');
}

/// A header of one tensor "t" with these fields.
[[nodiscard]] inline std::string fields(std::string const& text) {
  return "{\"t\":{" + text + "}}";
}

/// A header of one tensor "t" whose description has these three values.
[[nodiscard]] inline std::string one(std::string const& dtype, std::string const& shape, std::string const& offsets) {
  return fields("\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets);
}

/// A part of a header: a tensor of bytes.
[[nodiscard]] inline std::string tensor(std::string const& name, int begin, int end) {
  return "\"" + name + "\":{\"dtype\":\"U8\",\"shape\":[" + std::to_string(end - begin) + "],\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

/// A file that must be refused.
struct MalformedSafetensors {
  char const* rule;  ///< the rule of the format that it breaks: S1 size, S2 header length, S3 object, S4 text, S5
                     ///< structure, S6 fields, S7 metadata, S8 types, S9 shapes, S10 spans, S11 layout, S12 names
  std::string bytes;
  std::string message;  ///< what the error says after the file's name: byte, tensor, what, expected, got
  ErrorCode code = ErrorCode::MalformedFile;
};

/// Every case is refused, mapped and read, with its message, and no two have the same.
inline void check_refusals(std::vector<MalformedSafetensors> const& cases) {
  TemporaryFolder const folder;
  auto const path = folder / "bad.safetensors";
  std::set<std::string> messages;
  for (MalformedSafetensors const& item : cases) {
    INFO(item.rule << ": " << item.message);
    io::write_file(path, item.bytes);
    for (io::FileAccess const access : {io::FileAccess::Map, io::FileAccess::Read}) {
      auto const failure = failure_of([&] { (void)io::SafetensorsFile::open(path, access); });
      REQUIRE(failure);
      CHECK(failure->message == path.string() + ": " + item.message);
      CHECK(failure->code == item.code);
    }
    CHECK(messages.insert(item.message).second);
  }
}

}  // namespace mor::test
