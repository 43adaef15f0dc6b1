// SPDX-License-Identifier: Apache-2.0
/// @file
/// Writing checkpoints so that a killed process, a full disk or a power cut leaves the old one or the new one, whole.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/train/checkpoint.hpp"
#include "mor/train/checkpoint_manifest.hpp"
#include "mor/train/durable_files.hpp"
#include "mor/train/file_operations.hpp"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::train {

/// One file of a checkpoint to be saved: `write` creates it under the path given. The store flushes it to disk.
struct CheckpointFile {
  std::string name;
  std::function<void(std::filesystem::path const&)> write;
};

/// What a successful save did.
struct SaveReport {
  std::filesystem::path directory;     ///< where the checkpoint is
  std::vector<Index> removed;          ///< older steps deleted to keep the last N
  std::string cleanup_warning;         ///< why an older checkpoint could not be deleted; empty when all went well
};

/// A folder of checkpoints `step-<n>`, of which one process at a time is the writer.
///
/// A save writes `.tmp-<n>`, flushes every file and the folder, renames it to `step-<n>` and flushes the parent: only
/// that rename makes it visible. A deletion is the reverse: rename to `.trash-step-<n>`, flush the parent, remove.
/// What a crash leaves behind under `.tmp-*` and `.trash-*` is removed when a store is made on the folder and before
/// the next save; nothing else may use such names there.
class CheckpointStore {
 public:
  using Path = std::filesystem::path;

  /// Creates the folder if need be and clears what a crash left behind.
  /// @param keep_last  checkpoints to keep; older ones are deleted after a save
  CheckpointStore(Path root, Index keep_last, FileOperations& operations = system_file_operations())
      : root_(std::move(root)), keep_last_(keep_last), operations_(&operations), files_(operations) {
    if (keep_last < 1) {
      fail(ErrorCode::InvalidArgument, "a store must keep a checkpoint", "CheckpointStore: keep_last", "at least 1",
           text_of(keep_last));
    }
    files_.make_directories(root_);
    clear_leftovers();
  }

  [[nodiscard]] Path const& root() const { return root_; }

  /// Steps saved here, ascending; not verified.
  [[nodiscard]] std::vector<Index> steps() const { return list_checkpoints(root_, *operations_); }

  /// Saves one checkpoint. When it returns, the checkpoint is on disk; when it throws, every checkpoint there was is
  /// still there, and training may go on and save again. A checkpoint of the same step is replaced in one step, where
  /// the file system can swap names (Linux, local disks); elsewhere call `discard_after(step - 1)` before.
  /// @throws mor::error InvalidArgument for impossible names, IoFailure (a full disk among others), and whatever the
  ///         files' own writers throw
  SaveReport save(Index step, std::span<CheckpointFile const> files) {
    check(step, files);
    clear_leftovers();
    Path const hidden = root_ / (".tmp-" + std::to_string(step));
    Path const visible = root_ / checkpoint_name(step);
    try {
      write_hidden(hidden, step, files);
      publish(hidden, visible);
    } catch (...) {
      discard_quietly();
      throw;
    }
    SaveReport report;
    report.directory = visible;
    try {
      remove_leftovers();  // the replaced checkpoint of the same step, if there was one; publish() flushed the names
      prune(step, report.removed);
    } catch (std::exception const& problem) {
      report.cleanup_warning = problem.what();
    }
    return report;
  }

  /// Deletes every checkpoint after `step`: for a run that goes back to an earlier one and must not meet the later
  /// ones again. Returns the steps deleted.
  std::vector<Index> discard_after(Index step) {
    std::vector<Index> later = steps();
    std::erase_if(later, [&](Index other) { return other <= step; });
    remove(later);
    return later;
  }

 private:
  static void check(Index step, std::span<CheckpointFile const> files) {
    if (step < 0) fail(ErrorCode::InvalidArgument, "negative step", "checkpoint", "0 or more", text_of(step));
    if (files.empty()) fail(ErrorCode::InvalidArgument, "a checkpoint without files", "checkpoint", "at least 1", "0");
    for (std::size_t i = 0; i < files.size(); ++i) {
      std::string const& name = files[i].name;
      bool const repeated = std::any_of(files.begin(), files.begin() + static_cast<std::ptrdiff_t>(i),
                                        [&](CheckpointFile const& other) { return other.name == name; });
      if (!repeated && detail::is_plain_file_name(name) && files[i].write) continue;
      fail(ErrorCode::InvalidArgument, "a file that cannot be part of a checkpoint", "checkpoint",
           "a writer, and a unique name of letters, digits, '.', '_' and '-', not beginning with '.', not " +
               std::string(kManifestName),
           name.empty() ? "an empty name" : name);
    }
  }

  void write_hidden(Path const& hidden, Index step, std::span<CheckpointFile const> files) {
    files_.make_directory(hidden);
    CheckpointManifest manifest;
    manifest.step = step;
    for (CheckpointFile const& file : files) {
      Path const path = hidden / file.name;
      file.write(path);
      files_.sync_file(path);
      manifest.files.push_back({file.name, files_.digest(path)});
    }
    files_.write_file(hidden / kManifestName, to_json(manifest));
    files_.sync_directory(hidden);
  }

  void publish(Path const& hidden, Path const& visible) {
    if (files_.status(visible)) {
      // Never remove, then rename: there must be no moment without a checkpoint of this step.
      files_.exchange(hidden, visible);
    } else {
      files_.rename(hidden, visible);
    }
    files_.sync_directory(root_);
  }

  /// Removes `.tmp-*` and `.trash-*`. The names are flushed first: a rename that hid something must be on disk before
  /// its files go, or a power cut could bring the name back without them.
  void clear_leftovers() {
    if (leftovers().empty()) return;
    files_.sync_directory(root_);
    remove_leftovers();
  }

  void remove_leftovers() {
    for (std::string const& name : leftovers()) files_.remove_tree(root_ / name);
  }

  [[nodiscard]] std::vector<std::string> leftovers() const {
    std::vector<std::string> names = files_.list(root_);
    std::erase_if(names, [](std::string_view name) {
      return !name.starts_with(".tmp-") && !name.starts_with(".trash-");
    });
    return names;
  }

  /// After a failed save: gives the disk space back if possible; what cannot be removed now is hidden anyway.
  void discard_quietly() noexcept {
    try {
      clear_leftovers();
    } catch (...) {  // the error that ended the save is the one to report
    }
  }

  /// Keeps the newest `keep_last` checkpoints up to `newest`; later ones belong to another run and are left alone.
  void prune(Index newest, std::vector<Index>& removed) {
    std::vector<Index> old = steps();
    std::erase_if(old, [&](Index step) { return step > newest; });
    if (old.size() <= static_cast<std::size_t>(keep_last_)) return;
    old.resize(old.size() - static_cast<std::size_t>(keep_last_));
    remove(old);
    removed = std::move(old);
  }

  void remove(std::vector<Index> const& steps) {
    for (Index const step : steps) {
      std::string const name = checkpoint_name(step);
      files_.rename(root_ / name, root_ / (".trash-" + name));
    }
    clear_leftovers();
  }

  Path root_;
  Index keep_last_;
  FileOperations* operations_;
  DurableFiles files_;
};

}  // namespace mor::train
