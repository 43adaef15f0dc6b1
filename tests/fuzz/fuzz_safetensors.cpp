// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of safetensors files: any bytes are a file whose every tensor can be read, or a mor::error; mapped and read
/// files get the same verdict, and what is accepted is written and read back the same.
#include "mor/io/safetensors.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

namespace {

/// The header length that the first eight bytes would state is replaced by the true one in half of the runs, so that
/// mutations reach the header's text.
std::string file_bytes(std::uint8_t const* data, std::size_t size) {
  std::string bytes(reinterpret_cast<char const*>(data), size);
  if (size < 9 || (data[size - 1] & 1U) == 0) return bytes;
  std::size_t const end = bytes.rfind('}');
  if (end == std::string::npos || end < 8) return bytes;
  std::uint64_t const length = end + 1 - 8;
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(static_cast<unsigned char>(length >> (8 * i)));
  return bytes;
}

void demand(bool holds) {
  if (!holds) std::abort();
}

void read_all(mor::io::SafetensorsFile const& file) {
  std::uint64_t total = 0;
  for (auto const& entry : file.entries()) {
    auto const bytes = file.bytes(entry.name);
    for (std::byte const byte : bytes) total += static_cast<std::uint64_t>(byte);
    try {
      std::vector<float> values(static_cast<std::size_t>(entry.info.elements()));
      file.read_float32(entry.name, values);
      file.read_float32_part(entry.name, entry.info.elements() / 2, std::span(values).first(values.size() / 2));
    } catch (mor::error const&) {
    }
    try {
      std::vector<std::int64_t> values(static_cast<std::size_t>(entry.info.elements()));
      file.read_int64(entry.name, values);
    } catch (mor::error const&) {
    }
  }
  volatile std::uint64_t keep = total;
  static_cast<void>(keep);
}

/// Writes the tensors to another file in memory and compares.
void round_trip(mor::io::SafetensorsFile const& file) {
  static int const copy = ::memfd_create("copy", 0);
  static std::string const path = "/proc/self/fd/" + std::to_string(copy);
  std::vector<mor::io::TensorToWrite> tensors;
  for (auto const& entry : file.entries()) {
    tensors.push_back({entry.name, entry.info.dtype, entry.info.shape, file.bytes(entry.name)});
  }
  mor::io::write_safetensors(path, tensors, file.metadata(), mor::io::WriteMode::InPlace);
  auto const again = mor::io::SafetensorsFile::open(path);
  demand(again.names() == file.names() && again.metadata() == file.metadata());
  for (auto const& entry : file.entries()) {
    auto const left = file.bytes(entry.name), right = again.bytes(entry.name);
    demand(again.info(entry.name).dtype == entry.info.dtype && again.info(entry.name).shape == entry.info.shape);
    demand(std::equal(left.begin(), left.end(), right.begin(), right.end()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  // A file in memory: no disk between two runs.
  static int const file = ::memfd_create("fuzz", 0);
  static std::string const path = "/proc/self/fd/" + std::to_string(file);
  std::string const bytes = file_bytes(data, size);
  demand(::ftruncate(file, 0) == 0);
  demand(::pwrite(file, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  bool mapped = false, read = false;
  try {
    auto const opened = mor::io::SafetensorsFile::open(path);
    mapped = true;
    read_all(opened);
    round_trip(opened);
  } catch (mor::error const&) {
    demand(!mapped);  // what is open can be read and written
  }
  try {
    static_cast<void>(mor::io::SafetensorsFile::open(path, mor::io::FileAccess::Read));
    read = true;
  } catch (mor::error const&) {
  }
  demand(mapped == read);
  return 0;
}
