// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tensors of a model as one `TensorSource`, whether they lie in one safetensors file or in shards with an index;
/// and the writer of both.
#pragma once

#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/tensor_source.hpp"
#include "mor/io/safetensors_file.hpp"
#include "mor/io/safetensors_index.hpp"
#include "mor/io/safetensors_writer.hpp"

#include <algorithm>
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
#include <type_traits>
#include <utility>
#include <vector>

namespace mor::io {

/// One or several safetensors files, mapped into memory, whose headers have been checked and agree with the index.
class SafetensorsSet final : public TensorSource {
 public:
  /// @param path  a `*.safetensors` file, or an index (`*.json`) whose shards lie beside it
  /// @throws mor::error as SafetensorsFile::open and load_safetensors_index do; MalformedFile where the index names a
  ///         tensor that its shard does not hold, or a shard holds a tensor that the index does not place there
  explicit SafetensorsSet(std::filesystem::path const& path, FileAccess access = FileAccess::Map)
      : label_(path.string()) {
    if (path.extension() != ".json") {
      files_.push_back(SafetensorsFile::open(path, access));
      for (SafetensorsEntry const& entry : files_[0].entries()) file_of_.emplace(entry.name, 0);
      return;
    }
    SafetensorsIndex const index = load_safetensors_index(path);
    std::map<std::string, std::size_t> number_of;
    for (std::string const& shard : index.shards()) {
      number_of.emplace(shard, files_.size());
      files_.push_back(SafetensorsFile::open(path.parent_path() / shard, access));
    }
    for (auto const& [name, shard] : index.shard_of) {
      SafetensorsFile const& file = files_[number_of.at(shard)];
      if (!file.contains(name)) {
        fail(ErrorCode::MalformedFile, "the shard does not hold a tensor that the index places there",
             label_ + ": field weight_map, tensor " + printable(name), "a tensor of " + file.file(), "none");
      }
      file_of_.emplace(name, number_of.at(shard));
    }
    for (auto const& [shard, number] : number_of) check_surplus(index, shard, files_[number]);
  }

  [[nodiscard]] std::string label() const override { return label_; }
  [[nodiscard]] std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (auto const& [name, file] : file_of_) names.push_back(name);
    return names;
  }
  [[nodiscard]] std::optional<TensorFacts> find(std::string_view name) const override {
    SafetensorsFile const* const file = holder(name);
    if (file == nullptr) return std::nullopt;
    TensorInfo const& info = file->info(name);
    return TensorFacts{info.dtype, info.shape};
  }
  void read(std::string_view name, Index first, std::span<float> into) const override {
    demand(name).read_float32_part(name, first, into);
  }
  void release(std::string_view name) const override { demand(name).release(name); }
  [[nodiscard]] std::string where(std::string_view name) const override {
    SafetensorsFile const* const file = holder(name);
    return (file == nullptr ? label_ : file->file()) + ": tensor " + printable(name, 200);
  }
  [[nodiscard]] bool same_bits(std::string_view a, std::string_view b) const override {
    TensorInfo const &first = demand(a).info(a), &second = demand(b).info(b);
    if (first.dtype != second.dtype || first.shape != second.shape) return false;
    auto left = demand(a).bytes(a), right = demand(b).bytes(b);
    while (!left.empty()) {
      auto const part = std::min<std::size_t>(left.size(), std::size_t{1} << 20);
      bool const same = std::equal(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(part), right.begin());
      release(a);
      release(b);
      if (!same) return false;
      left = left.subspan(part);
      right = right.subspan(part);
    }
    return true;
  }

  /// The files, in the order of their names.
  [[nodiscard]] std::vector<SafetensorsFile> const& files() const noexcept { return files_; }

 private:
  static void check_surplus(SafetensorsIndex const& index, std::string const& shard, SafetensorsFile const& file) {
    for (SafetensorsEntry const& entry : file.entries()) {
      auto const place = index.shard_of.find(entry.name);
      if (place != index.shard_of.end() && place->second == shard) continue;
      bool const absent = place == index.shard_of.end();
      fail(ErrorCode::MalformedFile, "the shard holds a tensor that the index does not place there",
           file.file() + ": byte " + std::to_string(entry.name_at) + ": tensor " + printable(entry.name),
           absent ? "a tensor of the index" : "the tensor in " + printable(place->second) + " alone",
           absent ? "one that it does not name" : "a second one");
    }
  }

  [[nodiscard]] SafetensorsFile const* holder(std::string_view name) const {
    auto const place = file_of_.find(name);
    return place == file_of_.end() ? nullptr : &files_[place->second];
  }
  [[nodiscard]] SafetensorsFile const& demand(std::string_view name) const {
    SafetensorsFile const* const file = holder(name);
    if (file == nullptr) fail(ErrorCode::ShapeMismatch, "the tensor is missing", where(name));
    return *file;
  }

  std::string label_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t, std::less<>> file_of_;
};

/// A tensor to write: the name it gets, and the tensor of the source that it is.
struct TensorCopy {
  std::string name;
  std::string source;
};

/// How `write_safetensors_set` writes.
struct SafetensorsSetOptions {
  DType dtype = DType::F32;                   ///< F32, F16 or BF16
  std::uint64_t shard_bytes = 5'000'000'000;  ///< more than that becomes several files
  std::map<std::string, std::string> metadata{{"format", "pt"}};
};

namespace detail {

/// Narrows floats to the stored type, as bytes. A finite number that would become infinite is refused.
template <class Stored>
void append_narrowed(std::span<float const> values, std::vector<std::byte>& bytes, std::string const& where) {
  bytes.resize(values.size() * sizeof(Stored));
  for (std::size_t i = 0; i < values.size(); ++i) {
    Stored const stored(values[i]);
    if (std::isinf(static_cast<float>(stored)) && !std::isinf(values[i])) {
      fail(ErrorCode::NonFinite, "a value is too large for the element type asked for", where,
           "at most " +
               text_of(static_cast<float>(Stored::from_bits(std::is_same_v<Stored, float16> ? 0x7bff : 0x7f7f))),
           text_of(values[i]));
    }
    std::memcpy(bytes.data() + i * sizeof(Stored), &stored, sizeof(Stored));
  }
}

[[nodiscard]] inline std::string five_digits(std::size_t number) {
  std::string const digits = std::to_string(number);
  return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
}

/// The data of one file, tensor by tensor.
inline void write_copies(std::filesystem::path const& path, std::vector<TensorCopy> const& copies,
                         TensorSource const& source, SafetensorsSetOptions const& options) {
  std::vector<TensorSpec> specs;
  std::map<std::string_view, std::string_view> source_of;
  for (TensorCopy const& copy : copies) {
    specs.push_back({copy.name, options.dtype, source.facts(copy.source).shape});
    source_of.emplace(copy.name, copy.source);
  }
  SafetensorsWriter writer(path, std::move(specs), options.metadata);
  std::vector<float> values;
  std::vector<std::byte> bytes;
  for (TensorSpec const& tensor : writer.tensors()) {
    std::string_view const from = source_of.at(tensor.name);
    Index const elements = source.facts(from).elements();
    for (Index at = 0; at < elements; at += TensorSource::piece) {
      values.resize(static_cast<std::size_t>(std::min(TensorSource::piece, elements - at)));
      source.read(from, at, values);
      source.release(from);
      switch (options.dtype) {
        case DType::F16: append_narrowed<float16>(values, bytes, source.where(from)); break;
        case DType::BF16: append_narrowed<bfloat16>(values, bytes, source.where(from)); break;
        default: break;
      }
      writer.write(options.dtype == DType::F32 ? std::as_bytes(std::span<float const>(values)) : bytes);
    }
  }
  writer.commit();
}

}  // namespace detail

/// Writes tensors into `FOLDER/STEM.safetensors`; where they have more bytes than `shard_bytes`, into files
/// `STEM-00001-of-0000N.safetensors` of at most that size each (a larger tensor is alone) and, last, their index. The
/// source is read in pieces: no tensor is ever in memory as a whole.
/// @return the names of the files
/// @throws mor::error InvalidArgument for another type than F32, F16 or BF16 and for what SafetensorsWriter refuses;
///         NonFinite where a value does not fit the type; IoFailure; and what the source throws
inline std::vector<std::string> write_safetensors_set(std::filesystem::path const& folder, std::string const& stem,
                                                      std::vector<TensorCopy> const& copies, TensorSource const& source,
                                                      SafetensorsSetOptions const& options = {}) {
  if (options.dtype != DType::F32 && options.dtype != DType::F16 && options.dtype != DType::BF16) {
    fail(ErrorCode::InvalidArgument, "weights are not written in this type", folder.string(), "F32, F16 or BF16",
         std::string(to_text(options.dtype)));
  }
  std::vector<std::vector<TensorCopy>> shards(1);
  std::uint64_t total = 0, used = 0;
  for (TensorCopy const& copy : copies) {
    auto const bytes = static_cast<std::uint64_t>(source.facts(copy.source).elements() * byte_size(options.dtype));
    if (!shards.back().empty() && (bytes > options.shard_bytes || used > options.shard_bytes - bytes)) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(copy);
    used += bytes;
    total += bytes;
  }
  if (shards.size() > max_shards) {
    fail(ErrorCode::InvalidArgument, "too many shards", folder.string(), "at most " + std::to_string(max_shards),
         std::to_string(shards.size()));
  }
  std::vector<std::string> files;
  if (shards.size() == 1) {
    files.push_back(stem + ".safetensors");
    detail::write_copies(folder / files.back(), shards[0], source, options);
    return files;
  }
  SafetensorsIndex index;
  index.total_size = total;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    files.push_back(stem + "-" + detail::five_digits(i + 1) + "-of-" + detail::five_digits(shards.size()) +
                    ".safetensors");
    detail::write_copies(folder / files.back(), shards[i], source, options);
    for (TensorCopy const& copy : shards[i]) index.shard_of.emplace(copy.name, files.back());
  }
  files.push_back(stem + ".safetensors.index.json");
  write_file(folder / files.back(), to_index_json(index));
  return files;
}

}  // namespace mor::io
