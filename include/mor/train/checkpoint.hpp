// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reading checkpoints: a folder `step-<n>` is used only after its manifest and the checksum of every file hold.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/train/checkpoint_manifest.hpp"
#include "mor/train/durable_files.hpp"
#include "mor/train/file_operations.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace mor::train {

/// The folder name of a step: `step-` and at least eight digits.
[[nodiscard]] inline std::string checkpoint_name(Index step) {
  std::string digits = std::to_string(step);
  if (digits.size() < 8) digits.insert(0, 8 - digits.size(), '0');
  return "step-" + digits;
}

/// The step of a folder name; nothing when it is not exactly what `checkpoint_name` makes.
[[nodiscard]] inline std::optional<Index> parse_checkpoint_name(std::string_view name) {
  if (!name.starts_with("step-")) return std::nullopt;
  Index step = -1;
  auto const [end, problem] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  bool const whole = problem == std::errc{} && end == name.data() + name.size();
  return whole && step >= 0 && checkpoint_name(step) == name ? std::optional<Index>(step) : std::nullopt;
}

/// A checkpoint whose every byte has been verified.
class Checkpoint {
 public:
  /// Verifies a checkpoint folder: manifest, names, sizes and checksums. The folder may have been renamed or copied.
  /// @throws mor::error MalformedFile naming the file that is missing or damaged, IoFailure when the system refuses
  [[nodiscard]] static Checkpoint open(std::filesystem::path const& directory,
                                       FileOperations& operations = system_file_operations()) {
    DurableFiles const files(operations);
    std::filesystem::path const manifest_path = directory / kManifestName;
    constexpr std::size_t largest_manifest = std::size_t{1} << 20U;
    static_cast<void>(regular_file(files, manifest_path, "the checkpoint has no manifest"));
    Checkpoint checkpoint;
    checkpoint.directory_ = directory;
    checkpoint.manifest_ = parse_manifest(files.read_file(manifest_path, largest_manifest), manifest_path.string());
    for (ManifestEntry const& entry : checkpoint.manifest_.files) verify(files, directory / entry.name, entry.digest);
    return checkpoint;
  }

  [[nodiscard]] Index step() const { return manifest_.step; }
  [[nodiscard]] std::filesystem::path const& directory() const { return directory_; }

  /// The names of its files, in the order they were written.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (ManifestEntry const& entry : manifest_.files) names.push_back(entry.name);
    return names;
  }

  [[nodiscard]] bool contains(std::string_view name) const {
    return std::any_of(manifest_.files.begin(), manifest_.files.end(),
                       [&](ManifestEntry const& entry) { return entry.name == name; });
  }

  /// The path of one of its files.
  /// @throws mor::error MalformedFile when the checkpoint has no such file
  [[nodiscard]] std::filesystem::path path(std::string_view name) const {
    if (contains(name)) return directory_ / name;
    std::string known;
    for (ManifestEntry const& entry : manifest_.files) known += (known.empty() ? "" : ", ") + entry.name;
    fail(ErrorCode::MalformedFile, "the checkpoint has no such file", directory_.string(), "one of " + known,
         std::string(name));
  }

 private:
  Checkpoint() = default;

  static FileStatus regular_file(DurableFiles const& files, std::filesystem::path const& path, char const* missing) {
    std::optional<FileStatus> const status = files.status(path);
    if (!status) fail(ErrorCode::MalformedFile, missing, path.string());
    if (status->kind != FileStatus::Kind::RegularFile) {
      fail(ErrorCode::MalformedFile, "not a regular file", path.string());
    }
    return *status;
  }

  static void verify(DurableFiles const& files, std::filesystem::path const& path, FileDigest const& expected) {
    FileStatus const status = regular_file(files, path, "a file of the checkpoint is missing");
    if (status.size != expected.size) {
      fail(ErrorCode::MalformedFile, "a file of the checkpoint has the wrong size", path.string(),
           text_of(expected.size) + " bytes", text_of(status.size) + " bytes");
    }
    FileDigest const found = files.digest(path);
    if (found != expected) {
      fail(ErrorCode::MalformedFile, "a file of the checkpoint is damaged", path.string(),
           "CRC-32C " + detail::hexadecimal(expected.crc32c), "CRC-32C " + detail::hexadecimal(found.crc32c));
    }
  }

  std::filesystem::path directory_;
  CheckpointManifest manifest_;
};

/// The steps of a folder's checkpoints, ascending, whole or not. A missing folder has none.
[[nodiscard]] inline std::vector<Index> list_checkpoints(std::filesystem::path const& root,
                                                         FileOperations& operations = system_file_operations()) {
  DurableFiles const files(operations);
  std::vector<Index> steps;
  if (!files.status(root)) return steps;
  for (std::string const& name : files.list(root)) {
    if (std::optional<Index> const step = parse_checkpoint_name(name)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

/// The newest checkpoint that is complete and verified, or nothing when there is none.
/// @param rejected  if given, receives the error of every newer checkpoint that had to be passed over: show them
/// @throws mor::error IoFailure when the system refuses to read (no permission, too many open files): falling back to
///         an older checkpoint would then throw training away for a passing reason
[[nodiscard]] inline std::optional<Checkpoint> find_latest(std::filesystem::path const& root,
                                                           std::vector<error>* rejected = nullptr,
                                                           FileOperations& operations = system_file_operations()) {
  std::vector<Index> const steps = list_checkpoints(root, operations);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    std::filesystem::path const directory = root / checkpoint_name(*step);
    try {
      Checkpoint checkpoint = Checkpoint::open(directory, operations);
      if (checkpoint.step() == *step) return checkpoint;
      fail(ErrorCode::MalformedFile, "the checkpoint's folder has the name of another step",
           (directory / kManifestName).string() + ": field step", text_of(*step), text_of(checkpoint.step()));
    } catch (error const& problem) {
      if (problem.code() == ErrorCode::IoFailure) throw;
      if (rejected != nullptr) rejected->push_back(problem);
    }
  }
  return std::nullopt;
}

}  // namespace mor::train
