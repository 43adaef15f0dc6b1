// SPDX-License-Identifier: Apache-2.0
/// @file
/// Writes a safetensors file with the layout of the format's own Python writer, tensor by tensor, without ever holding
/// a second copy of the data.
#pragma once

#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/file.hpp"
#include "mor/io/safetensors_header.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::io {

/// What a tensor will be, before its data is at hand.
struct TensorSpec {
  std::string name;
  DType dtype = DType::F32;
  std::vector<Index> shape;
};

/// A tensor and its data, row-major and little-endian. The bytes are referred to, not copied.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::F32;
  std::vector<Index> shape;
  std::span<std::byte const> bytes;
};

namespace detail {

/// Order of the element types in a file, first to last; it is that of the Python writer and puts wide types first, so
/// that every tensor is aligned for its type.
[[nodiscard]] constexpr int file_order(DType dtype) noexcept {
  constexpr std::array order{DType::U64,    DType::I64,        DType::F64,        DType::C64,    DType::F32,
                             DType::U32,    DType::I32,        DType::BF16,       DType::F16,    DType::U16,
                             DType::I16,    DType::F8E5M2Fnuz, DType::F8E4M3Fnuz, DType::F8E8M0, DType::F8E4M3,
                             DType::F8E5M2, DType::I8,         DType::U8,         DType::Bool};
  static_assert(order.size() == dtype_facts.size());
  int place = 0;
  for (DType const candidate : order) {
    if (candidate == dtype) return place;
    ++place;
  }
  return place;
}

/// Appends a JSON string, escaped as the Python writer escapes it.
inline void append_json_string(std::string& out, std::string_view text) {
  static constexpr char digits[] = "0123456789abcdef";
  static constexpr std::string_view specials = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
  out += '"';
  for (char const symbol : text) {
    std::size_t const special = specials.find(symbol);
    auto const byte = static_cast<unsigned char>(symbol);
    if (special != std::string_view::npos) {
      out += {'\\', letters[special]};
    } else if (byte < 0x20) {
      out += "\\u00";
      out += {digits[byte >> 4], digits[byte & 15]};
    } else {
      out += symbol;
    }
  }
  out += '"';
}

}  // namespace detail

/// Writes one file in three steps: construct with every tensor's name, type and shape; `write` the data of each, in the
/// order of `tensors()`, in as many pieces as convenient; `commit`. Without `commit` the target is untouched.
class SafetensorsWriter {
 public:
  /// Writes the header.
  /// @param specs     the tensors, in any order
  /// @param metadata  text to store beside them; written sorted by key
  /// @param mode      Replace: whole file or none; InPlace: for a file inside a folder that is renamed as a whole
  /// @throws mor::error InvalidArgument for anything that a reader would refuse, IoFailure from the system
  SafetensorsWriter(std::filesystem::path const& path, std::vector<TensorSpec> specs,
                    std::map<std::string, std::string> const& metadata = {}, WriteMode mode = WriteMode::Replace)
      : file_(path.string()), tensors_(std::move(specs)) {
    for (TensorSpec const& tensor : tensors_) check(tensor);
    sort_tensors();
    std::string const header = compose(metadata);
    std::uint64_t const length = header.size();
    std::string start(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) start[i] = static_cast<char>(static_cast<unsigned char>(length >> (8 * i)));
    writer_.emplace(path, mode);
    writer_->write(start);
    writer_->write(header);
    skip_empty();
  }

  /// The tensors in the order in which their data must come.
  [[nodiscard]] std::vector<TensorSpec> const& tensors() const noexcept { return tensors_; }

  /// The next bytes of the data section.
  /// @throws mor::error InvalidArgument for more than the tensors hold, IoFailure from the system
  void write(std::span<std::byte const> bytes) {
    std::uint64_t rest = bytes.size();
    while (rest > 0) {
      if (next_ == tensors_.size()) fail(ErrorCode::InvalidArgument, "more data than the tensors hold", file_);
      std::uint64_t const part = std::min(rest, size_of(next_) - written_);
      written_ += part;
      rest -= part;
      skip_empty();
    }
    writer_->write(bytes);
  }

  /// Ends the file and makes it visible.
  /// @throws mor::error InvalidArgument when data is missing, IoFailure from the system
  void commit() {
    if (next_ != tensors_.size()) {
      fail(ErrorCode::InvalidArgument, "not all data was written",
           file_ + ": tensor " + printable(tensors_[next_].name), std::to_string(size_of(next_)) + " bytes",
           std::to_string(written_));
    }
    writer_->commit();
  }

 private:
  [[nodiscard]] std::uint64_t size_of(std::size_t i) const {
    return *tensor_bytes(tensors_[i].dtype, tensors_[i].shape);
  }

  /// Moves on from tensors whose data is complete.
  void skip_empty() {
    while (next_ < tensors_.size() && written_ == size_of(next_)) {
      ++next_;
      written_ = 0;
    }
  }

  void check(TensorSpec const& tensor) const {
    std::string const where = file_ + ": tensor " + printable(tensor.name);
    bool const named = tensor.name.size() <= max_safetensors_name_bytes && tensor.name != safetensors_metadata_key &&
                       tensor.name.find('\0') == std::string::npos && valid_utf8(tensor.name);
    if (!named) {
      fail(ErrorCode::InvalidArgument, "not a name for a tensor", where,
           "UTF-8 of at most " + std::to_string(max_safetensors_name_bytes) + " bytes without NUL, not __metadata__",
           printable(tensor.name));
    }
    if (tensor.shape.size() > max_safetensors_rank) {
      fail(ErrorCode::InvalidArgument, "too many dimensions", where, "at most " + std::to_string(max_safetensors_rank),
           std::to_string(tensor.shape.size()));
    }
    std::optional<std::uint64_t> const bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (!bytes || *bytes > std::uint64_t(std::numeric_limits<Index>::max())) {
      fail(ErrorCode::InvalidArgument, "not a shape", where, "dimensions >= 0, at most 2^63 bytes",
           shape_text(tensor.shape));
    }
  }

  void sort_tensors() {
    std::sort(tensors_.begin(), tensors_.end(), [](TensorSpec const& a, TensorSpec const& b) {
      int const left = detail::file_order(a.dtype), right = detail::file_order(b.dtype);
      return left != right ? left < right : a.name < b.name;
    });
    std::vector<std::string_view> names;
    for (TensorSpec const& tensor : tensors_) names.push_back(tensor.name);
    std::sort(names.begin(), names.end());
    auto const twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) {
      fail(ErrorCode::InvalidArgument, "two tensors have the same name", file_ + ": tensor " + printable(*twice));
    }
    if (names.size() > max_safetensors_tensors) {
      fail(ErrorCode::InvalidArgument, "too many tensors", file_, "at most " + std::to_string(max_safetensors_tensors),
           std::to_string(names.size()));
    }
  }

  [[nodiscard]] std::string compose(std::map<std::string, std::string> const& metadata) const {
    std::string header = "{";
    if (!metadata.empty()) append_metadata(header, metadata);
    std::uint64_t offset = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      TensorSpec const& tensor = tensors_[i];
      if (header.size() > 1) header += ',';
      detail::append_json_string(header, tensor.name);
      header += ":{\"dtype\":\"" + std::string(to_text(tensor.dtype)) + "\",\"shape\":[";
      for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
        if (d > 0) header += ',';
        header += std::to_string(tensor.shape[d]);
      }
      std::uint64_t const begin = offset;
      offset += size_of(i);
      header += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(offset) + "]}";
    }
    header += '}';
    header.append((8 - header.size() % 8) % 8, ' ');
    if (header.size() > max_safetensors_header_bytes) {
      fail(ErrorCode::InvalidArgument, "header too long", file_,
           "at most " + std::to_string(max_safetensors_header_bytes) + " bytes", std::to_string(header.size()));
    }
    return header;
  }

  void append_metadata(std::string& header, std::map<std::string, std::string> const& metadata) const {
    detail::append_json_string(header, safetensors_metadata_key);
    header += ":{";
    std::size_t total = 0;
    bool first = true;
    for (auto const& [key, value] : metadata) {
      total += key.size() + value.size();
      if (!valid_utf8(key) || !valid_utf8(value)) {
        fail(ErrorCode::InvalidArgument, "metadata is not valid UTF-8", file_, {}, printable(key));
      }
      if (!std::exchange(first, false)) header += ',';
      detail::append_json_string(header, key);
      header += ':';
      detail::append_json_string(header, value);
    }
    header += '}';
    if (total > max_safetensors_metadata_bytes) {
      fail(ErrorCode::InvalidArgument, "too much metadata", file_,
           "at most " + std::to_string(max_safetensors_metadata_bytes) + " bytes", std::to_string(total));
    }
  }

  std::string file_;
  std::vector<TensorSpec> tensors_;
  std::optional<FileWriter> writer_;
  std::size_t next_ = 0;       ///< the tensor whose data comes next
  std::uint64_t written_ = 0;  ///< bytes of it that have come
};

/// Writes tensors whose data is in host memory; see SafetensorsWriter for the order in the file, modes and errors.
inline void write_safetensors(std::filesystem::path const& path, std::vector<TensorToWrite> const& tensors,
                              std::map<std::string, std::string> const& metadata = {},
                              WriteMode mode = WriteMode::Replace) {
  std::vector<TensorSpec> specs;
  std::map<std::string_view, std::span<std::byte const>> data;
  for (TensorToWrite const& tensor : tensors) {
    std::optional<std::uint64_t> const bytes = tensor_bytes(tensor.dtype, tensor.shape);
    if (bytes && *bytes != tensor.bytes.size()) {
      fail(ErrorCode::InvalidArgument, "data does not fit the shape " + shape_text(tensor.shape),
           path.string() + ": tensor " + printable(tensor.name), std::to_string(*bytes) + " bytes",
           std::to_string(tensor.bytes.size()));
    }
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
    data.emplace(tensor.name, tensor.bytes);
  }
  SafetensorsWriter writer(path, std::move(specs), metadata, mode);
  for (TensorSpec const& tensor : writer.tensors()) writer.write(data.at(tensor.name));
  writer.commit();
}

}  // namespace mor::io
