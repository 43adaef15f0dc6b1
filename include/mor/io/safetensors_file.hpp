// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads a safetensors file: named tensors, mapped into memory or read, converted to the type the caller computes in.
#pragma once

#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/io/file.hpp"
#include "mor/io/mapped_file.hpp"
#include "mor/io/safetensors_header.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace mor::io {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian and is used in place");

/// How the data section gets into memory.
enum class FileAccess {
  Map,  ///< mapped read-only: fast, lazy; see MappedFile about files truncated by others
  Read  ///< copied into memory of our own: immune to what others do with the file
};

/// An open safetensors file whose header has been checked completely: every tensor lies inside the file, and together
/// they fill it exactly. The object owns the memory that `bytes` refers to.
class SafetensorsFile {
 public:
  /// @throws mor::error IoFailure from the system; MalformedFile with file, byte offset, tensor, expected and got;
  ///         Unsupported when a tensor has an element type of the format that this library does not read
  [[nodiscard]] static SafetensorsFile open(std::filesystem::path const& path, FileAccess access = FileAccess::Map) {
    return SafetensorsFile(path, access);
  }

  [[nodiscard]] std::string const& file() const noexcept { return file_; }
  [[nodiscard]] std::map<std::string, std::string> const& metadata() const noexcept { return header_.metadata; }

  /// All tensors, sorted by name.
  [[nodiscard]] std::span<SafetensorsEntry const> entries() const noexcept { return header_.entries; }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (SafetensorsEntry const& entry : header_.entries) names.push_back(entry.name);
    return names;
  }

  [[nodiscard]] bool contains(std::string_view name) const { return find(name) != nullptr; }

  /// @throws mor::error ShapeMismatch when there is no such tensor
  [[nodiscard]] TensorInfo const& info(std::string_view name) const {
    TensorInfo const* const found = find(name);
    if (found == nullptr) fail(ErrorCode::ShapeMismatch, "no such tensor in the file", where(name));
    return *found;
  }

  /// The tensor's bytes as they are in the file; not aligned for its type.
  [[nodiscard]] std::span<std::byte const> bytes(std::string_view name) const {
    TensorInfo const& tensor = info(name);
    return data_.subspan(static_cast<std::size_t>(tensor.begin), static_cast<std::size_t>(tensor.end - tensor.begin));
  }

  /// @throws mor::error ShapeMismatch unless the tensor exists with exactly this shape
  void demand_shape(std::string_view name, std::vector<Index> const& shape) const {
    TensorInfo const& tensor = info(name);
    if (tensor.shape != shape) {
      fail(ErrorCode::ShapeMismatch, "wrong shape", where(name), shape_text(shape), shape_text(tensor.shape));
    }
  }

  /// @name The values of a floating-point tensor (F64, F32, F16, BF16)
  /// Widening is exact, F64 to float rounds to nearest. `into` has one place for each element.
  /// @throws mor::error ShapeMismatch for a missing tensor, another element type or another count
  /// @{
  void read_float32(std::string_view name, std::span<float> into) const { read_floating(name, into); }
  void read_float64(std::string_view name, std::span<double> into) const { read_floating(name, into); }
  /// @}

  /// A part of a floating-point tensor: the elements from `first` on, as many as `into` has places.
  /// @throws mor::error ShapeMismatch as above, and for a part that runs past the tensor's end
  void read_float32_part(std::string_view name, Index first, std::span<float> into) const {
    Index const elements = info(name).elements(), count = static_cast<Index>(into.size());
    if (first < 0 || first > elements || count > elements - first) {
      fail(ErrorCode::ShapeMismatch, "a part outside the tensor", where(name), std::to_string(elements) + " elements",
           std::to_string(count) + " from " + std::to_string(first) + " on");
    }
    convert_floating(name, bytes(name).subspan(static_cast<std::size_t>(first * byte_size(info(name).dtype))), into);
  }

  /// Lets go of the memory that reading this tensor took where the file is mapped; it can be read again.
  void release(std::string_view name) const {
    if (!mapping_.bytes().empty()) mapping_.release_pages(bytes(name));
  }

  /// @name The values of an integer tensor (I64, I32, I16, I8, U64, U32, U16, U8)
  /// @throws mor::error ShapeMismatch as above, and when a value does not fit the type asked for
  /// @{
  void read_int32(std::string_view name, std::span<std::int32_t> into) const { read_integers(name, into); }
  void read_int64(std::string_view name, std::span<std::int64_t> into) const { read_integers(name, into); }
  /// @}

 private:
  SafetensorsFile(std::filesystem::path const& path, FileAccess access) : file_(path.string()) {
    if (access == FileAccess::Map) {
      mapping_ = MappedFile(path);
      std::span<std::byte const> const all = mapping_.bytes();
      std::size_t const length = header_length(all.first(std::min<std::size_t>(all.size(), 8)), all.size());
      data_ = all.subspan(8 + length);
      header_ = parse_safetensors_header(text(all.subspan(8, length)), data_.size(), file_);
    } else {
      read_all(path);
    }
  }

  /// The header is read and checked before memory for the data is taken.
  void read_all(std::filesystem::path const& path) {
    FileDescriptor file = open_file(path, O_RDONLY);
    std::uint64_t const size = regular_file_size(file, path);
    std::vector<std::byte> start(8);
    start.resize(read_some(file, path, start));
    std::vector<std::byte> header(header_length(start, size));
    bool complete = read_some(file, path, header) == header.size();
    if (complete) {
      auto const data_bytes = static_cast<std::size_t>(size) - 8 - header.size();
      header_ = parse_safetensors_header(text(header), data_bytes, file_);
      copy_.resize(data_bytes);
      complete = read_some(file, path, copy_) == data_bytes;
    }
    if (!complete) fail(ErrorCode::IoFailure, "the file became shorter while it was read", file_);
    file.close(path);
    data_ = copy_;
  }

  [[nodiscard]] static std::string_view text(std::span<std::byte const> bytes) {
    return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
  }

  /// The first eight bytes, checked against the file's size.
  [[nodiscard]] std::size_t header_length(std::span<std::byte const> start, std::uint64_t file_size) const {
    if (start.size() < 8) {
      fail(ErrorCode::MalformedFile, "too short for a safetensors file", file_ + ": byte 0", "at least 8 bytes",
           std::to_string(start.size()));
    }
    std::uint64_t length = 0;
    std::memcpy(&length, start.data(), 8);
    if (length > max_safetensors_header_bytes) {
      fail(ErrorCode::MalformedFile, "header too long", file_ + ": byte 0",
           "at most " + std::to_string(max_safetensors_header_bytes), std::to_string(length));
    }
    if (file_size < 8 || length > file_size - 8) {
      fail(ErrorCode::MalformedFile, "the header runs past the end of the file", file_ + ": byte 0",
           "at most " + std::to_string(file_size < 8 ? 0 : file_size - 8), std::to_string(length));
    }
    return static_cast<std::size_t>(length);
  }

  [[nodiscard]] TensorInfo const* find(std::string_view name) const {
    auto const place =
        std::lower_bound(header_.entries.begin(), header_.entries.end(), name,
                         [](SafetensorsEntry const& entry, std::string_view key) { return entry.name < key; });
    return place != header_.entries.end() && place->name == name ? &place->info : nullptr;
  }

  [[nodiscard]] std::string where(std::string_view name) const { return file_ + ": tensor " + printable(name); }

  [[noreturn]] void fail_dtype(std::string_view name, DType got, char const* expected) const {
    fail(ErrorCode::ShapeMismatch, "wrong element type", where(name), expected, std::string(to_text(got)));
  }

  void demand_count(std::string_view name, std::size_t places) const {
    TensorInfo const& tensor = info(name);
    if (static_cast<std::size_t>(tensor.elements()) != places) {
      fail(ErrorCode::ShapeMismatch, "wrong number of elements", where(name), std::to_string(places),
           std::to_string(tensor.elements()) + ", shape " + shape_text(tensor.shape));
    }
  }

  /// Copies element by element through a conversion; memcpy because file data is not aligned.
  template <class From, class To, class Convert>
  static void transform(std::span<std::byte const> source, std::span<To> into, Convert&& convert) {
    for (std::size_t i = 0; i < into.size(); ++i) {
      From value;
      std::memcpy(static_cast<void*>(&value), source.data() + i * sizeof(From), sizeof(From));
      into[i] = convert(value);
    }
  }

  template <class To>
  void read_floating(std::string_view name, std::span<To> into) const {
    demand_count(name, into.size());
    convert_floating(name, bytes(name), into);
  }

  template <class To>
  void convert_floating(std::string_view name, std::span<std::byte const> source, std::span<To> into) const {
    DType const dtype = info(name).dtype;
    auto const convert = [](auto value) { return static_cast<To>(value); };
    auto const widen = [](auto value) { return static_cast<To>(static_cast<float>(value)); };
    switch (dtype) {
      case DType::F64: return transform<double>(source, into, convert);
      case DType::F32: return transform<float>(source, into, convert);
      case DType::F16: return transform<float16>(source, into, widen);
      case DType::BF16: return transform<bfloat16>(source, into, widen);
      default: fail_dtype(name, dtype, "F64, F32, F16 or BF16");
    }
  }

  template <class To>
  void read_integers(std::string_view name, std::span<To> into) const {
    demand_count(name, into.size());
    std::span<std::byte const> const source = bytes(name);
    DType const dtype = info(name).dtype;
    auto const convert = [&](auto value) {
      if (!std::in_range<To>(value)) {
        fail(ErrorCode::ShapeMismatch, "value does not fit the integer type asked for", where(name),
             std::to_string(sizeof(To) * 8) + " bits", std::to_string(value));
      }
      return static_cast<To>(value);
    };
    switch (dtype) {
      case DType::I64: return transform<std::int64_t>(source, into, convert);
      case DType::I32: return transform<std::int32_t>(source, into, convert);
      case DType::I16: return transform<std::int16_t>(source, into, convert);
      case DType::I8: return transform<std::int8_t>(source, into, convert);
      case DType::U64: return transform<std::uint64_t>(source, into, convert);
      case DType::U32: return transform<std::uint32_t>(source, into, convert);
      case DType::U16: return transform<std::uint16_t>(source, into, convert);
      case DType::U8: return transform<std::uint8_t>(source, into, convert);
      default: fail_dtype(name, dtype, "I64, I32, I16, I8, U64, U32, U16 or U8");
    }
  }

  std::string file_;
  MappedFile mapping_;
  std::vector<std::byte> copy_;
  std::span<std::byte const> data_;
  SafetensorsHeader header_;
};

}  // namespace mor::io
