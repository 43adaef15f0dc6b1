// SPDX-License-Identifier: Apache-2.0
/// @file
/// The JSON header of a safetensors file, parsed strictly. The grammar is fixed, so this is a small reader of its own:
/// one pass, no document tree, bounded memory, and the byte offset of whatever is wrong.
#pragma once

#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/tensor_source.hpp"
#include "mor/core/types.hpp"
#include "mor/io/json_scanner.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::io {

/// @name What a file may hold; reader and writer keep the same bounds
/// @{
inline constexpr std::uint64_t max_safetensors_header_bytes = 100'000'000;
inline constexpr std::size_t max_safetensors_metadata_bytes = 1'048'576;  ///< of all keys and values
inline constexpr std::size_t max_safetensors_tensors = 100'000;
inline constexpr std::size_t max_safetensors_name_bytes = 1024;
inline constexpr std::size_t max_safetensors_rank = 8;
inline constexpr std::string_view safetensors_metadata_key = "__metadata__";
/// @}

/// Where a tensor lies in a file, and how to read it.
struct TensorInfo {
  DType dtype = DType::F32;
  std::vector<Index> shape;  ///< outermost dimension first, row-major; empty for a scalar
  std::uint64_t begin = 0;   ///< first byte, counted from the start of the data section
  std::uint64_t end = 0;     ///< one past the last byte

  [[nodiscard]] Index elements() const { return static_cast<Index>(end - begin) / byte_size(dtype); }
};

/// One tensor of the header.
struct SafetensorsEntry {
  std::string name;
  TensorInfo info;
  std::uint64_t name_at = 0;  ///< byte offset in the file of the name's opening quote, for messages
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< sorted by name
  std::map<std::string, std::string> metadata;
};

/// The element count of a shape times the element size, or nothing when it exceeds 64 bits.
[[nodiscard]] inline std::optional<std::uint64_t> tensor_bytes(DType dtype, std::vector<Index> const& shape) {
  std::uint64_t bytes = 1;
  for (Index const dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dimension), &bytes)) return {};
  }
  if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(byte_size(dtype)), &bytes)) return {};
  return bytes;
}

namespace detail {

/// Types that the format defines and this library does not read: their elements are no whole bytes.
inline constexpr std::array<std::string_view, 3> other_safetensors_dtypes{"F4", "F6_E2M3", "F6_E3M2"};

/// Reads the header text from front to back, then checks names and layout as a whole.
class SafetensorsHeaderReader {
 public:
  /// @param text        the header, padding included
  /// @param data_bytes  bytes of the file after the header
  /// @param file        the name that errors carry
  SafetensorsHeaderReader(std::string_view text, std::uint64_t data_bytes, std::string const& file)
      : scan_(text, file, header_at, "tensor"), text_(text), data_bytes_(data_bytes) {}

  [[nodiscard]] SafetensorsHeader run() {
    if (text_.starts_with("\xEF\xBB\xBF")) scan_.refuse("the header begins with a byte order mark", "{", {});
    scan_.object("the header", max_safetensors_name_bytes, [this](std::string&& name, std::size_t at) {
      if (name == safetensors_metadata_key) {
        read_metadata(at);
      } else {
        read_tensor(std::move(name), at);
      }
    });
    scan_.expect_end("the header");
    sort_by_name();
    check_layout();
    return std::move(header_);
  }

 private:
  static constexpr std::size_t header_at = 8;  // of the file

  void read_metadata(std::size_t name_at) {
    if (seen_metadata_) scan_.refuse_at(name_at, "the header repeats __metadata__", "", "");
    seen_metadata_ = true;
    std::size_t total = 0;
    auto const value = [&](std::string&& key, std::size_t key_at) {
      total += key.size();
      std::string text = scan_.read_string("__metadata__", max_safetensors_metadata_bytes);
      total += text.size();
      if (total > max_safetensors_metadata_bytes) {
        scan_.refuse_at(key_at, "__metadata__ is too large",
                        "at most " + std::to_string(max_safetensors_metadata_bytes) + " bytes", "more");
      }
      auto const [place, is_new] = header_.metadata.emplace(std::move(key), std::move(text));
      if (!is_new) scan_.refuse_at(key_at, "__metadata__ repeats a key", "", printable(place->first));
    };
    scan_.object("__metadata__", max_safetensors_metadata_bytes, value);
  }

  void read_tensor(std::string&& name, std::size_t name_at) {
    if (header_.entries.size() == max_safetensors_tensors) {
      scan_.refuse_at(name_at, "too many tensors", "at most " + std::to_string(max_safetensors_tensors), "more");
    }
    if (name.find('\0') != std::string::npos) {
      scan_.refuse_at(name_at, "a tensor's name holds a NUL character", "", printable(name));
    }
    header_.entries.push_back({std::move(name), {}, header_at + name_at});
    SafetensorsEntry& entry = header_.entries.back();
    scan_.subject = entry.name;
    bool has_dtype = false, has_shape = false, has_offsets = false;
    scan_.object("the tensor's description", 64, [&](std::string&& key, std::size_t key_at) {
      bool* seen = nullptr;
      if (key == "dtype") seen = &has_dtype;
      if (key == "shape") seen = &has_shape;
      if (key == "data_offsets") seen = &has_offsets;
      if (seen == nullptr) scan_.refuse_at(key_at, "unknown field", "dtype, shape or data_offsets", printable(key));
      if (*seen) scan_.refuse_at(key_at, "repeated field", "", printable(key));
      *seen = true;
      if (seen == &has_dtype) read_dtype(entry.info);
      if (seen == &has_shape) read_shape(entry.info);
      if (seen == &has_offsets) read_offsets(entry.info);
    });
    for (auto const& [present, field] :
         {std::pair(has_dtype, "dtype"), std::pair(has_shape, "shape"), std::pair(has_offsets, "data_offsets")}) {
      if (!present) scan_.refuse_at(name_at, "a required field is missing", field, {});
    }
    check_size(entry.info, name_at);
    scan_.subject = {};
  }

  void read_dtype(TensorInfo& info) {
    scan_.skip_space();
    std::size_t const begin = scan_.at();
    std::string const name = scan_.read_string("dtype", 64);
    std::optional<DType> const dtype = parse_dtype(name);
    if (dtype) {
      info.dtype = *dtype;
      return;
    }
    std::string expected;
    for (DTypeFacts const& facts : dtype_facts) expected += (expected.empty() ? "" : ", ") + std::string(facts.name);
    bool const defined = std::find(other_safetensors_dtypes.begin(), other_safetensors_dtypes.end(), name) !=
                         other_safetensors_dtypes.end();
    scan_.refuse_at(begin, defined ? "element type not supported" : "unknown element type", expected, printable(name),
                    defined ? ErrorCode::Unsupported : ErrorCode::MalformedFile);
  }

  void read_shape(TensorInfo& info) {
    scan_.expect('[', "shape");
    if (scan_.take(']')) return;
    for (;;) {
      if (info.shape.size() == max_safetensors_rank) {
        scan_.refuse("too many dimensions", "at most " + std::to_string(max_safetensors_rank), "more");
      }
      info.shape.push_back(static_cast<Index>(scan_.read_integer("a dimension of the shape")));
      if (scan_.take(']')) return;
      scan_.expect(',', "shape");
    }
  }

  void read_offsets(TensorInfo& info) {
    scan_.expect('[', "data_offsets");
    info.begin = scan_.read_integer("the first data offset");
    scan_.expect(',', "data_offsets");
    info.end = scan_.read_integer("the second data offset");
    scan_.expect(']', "data_offsets");
  }

  void check_size(TensorInfo const& info, std::size_t name_at) const {
    std::string const offsets = "[" + std::to_string(info.begin) + ", " + std::to_string(info.end) + "]";
    if (info.end < info.begin) scan_.refuse_at(name_at, "data_offsets run backwards", "begin <= end", offsets);
    if (info.end > data_bytes_) {
      scan_.refuse_at(name_at, "data_offsets lie beyond the end of the file",
                      "at most " + std::to_string(data_bytes_) + " bytes of data", offsets);
    }
    std::optional<std::uint64_t> const bytes = tensor_bytes(info.dtype, info.shape);
    std::string const shape = std::string(to_text(info.dtype)) + " of shape " + shape_text(info.shape);
    if (!bytes) scan_.refuse_at(name_at, "the shape's size exceeds 64 bits", "", shape);
    if (*bytes != info.end - info.begin) {
      scan_.refuse_at(name_at, "data_offsets do not span the shape", std::to_string(*bytes) + " bytes for " + shape,
                      std::to_string(info.end - info.begin) + " bytes, " + offsets);
    }
  }

  void sort_by_name() {
    auto& entries = header_.entries;
    std::sort(entries.begin(), entries.end(), [](SafetensorsEntry const& a, SafetensorsEntry const& b) {
      int const order = a.name.compare(b.name);
      return order != 0 ? order < 0 : a.name_at < b.name_at;
    });
    for (std::size_t i = 1; i < entries.size(); ++i) {
      if (entries[i].name == entries[i - 1].name) {
        scan_.refuse_at(entries[i].name_at - header_at, "the header repeats a tensor's name", "",
                        printable(entries[i].name));
      }
    }
  }

  /// The tensors tile the data section: no overlap, no hole, nothing left over.
  void check_layout() {
    std::vector<SafetensorsEntry const*> by_place;
    by_place.reserve(header_.entries.size());
    for (SafetensorsEntry const& entry : header_.entries) by_place.push_back(&entry);
    std::sort(by_place.begin(), by_place.end(), [](SafetensorsEntry const* a, SafetensorsEntry const* b) {
      return std::pair(a->info.begin, a->info.end) < std::pair(b->info.begin, b->info.end);
    });
    std::uint64_t end = 0;
    for (SafetensorsEntry const* entry : by_place) {
      scan_.subject = entry->name;
      if (entry->info.begin != end) {
        scan_.refuse_at(entry->name_at - header_at,
                        entry->info.begin < end ? "data overlaps another tensor's" : "hole before the data",
                        "begin at " + std::to_string(end), std::to_string(entry->info.begin));
      }
      end = entry->info.end;
    }
    scan_.subject = {};
    if (end != data_bytes_) {
      fail(ErrorCode::MalformedFile, "bytes after the last tensor",
           scan_.file() + ": byte " + std::to_string(header_at + text_.size() + end),
           std::to_string(end) + " bytes of data", std::to_string(data_bytes_));
    }
  }

  JsonScanner scan_;
  std::string_view text_;
  std::uint64_t data_bytes_;
  bool seen_metadata_ = false;
  SafetensorsHeader header_;
};

}  // namespace detail

/// Parses and checks a header: see the class above for what it demands.
/// @throws mor::error MalformedFile (or Unsupported for an element type we do not read) with file, byte and tensor
[[nodiscard]] inline SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                                                std::string const& file) {
  return detail::SafetensorsHeaderReader(text, data_bytes, file).run();
}

}  // namespace mor::io
