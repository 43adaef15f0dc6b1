// SPDX-License-Identifier: Apache-2.0
/// @file
/// A file system in memory behind the `FileOperations` seam, which knows what a power cut may take: file bytes are safe
/// after an fsync of the file, names after an fsync of their folder, and nothing else is.
#pragma once

#include "mor/train/file_operations.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace mor::test {

/// Copying copies the disk.
class MemoryFiles final : public train::FileOperations {
 public:
  std::uint64_t capacity = std::numeric_limits<std::uint64_t>::max();  ///< bytes of file content that fit
  bool can_exchange = true;

  MemoryFiles() { nodes_.push_back({.directory = true}); }  // node 0 is "/"

  [[nodiscard]] std::size_t open_count() const { return open_.size(); }

  [[nodiscard]] std::uint64_t used() const {
    std::uint64_t total = 0;
    for (Node const& node : nodes_) total += node.links > 0 ? node.data.size() : 0;
    return total;
  }

  /// What the disk holds after a power cut now. Unsynced bytes and names are lost, kept, or any mixture.
  enum class Unsynced { Lost, Kept, Mixed };
  [[nodiscard]] MemoryFiles after_power_cut(Unsynced fate, std::mt19937& random) const {
    MemoryFiles after = *this;
    after.open_.clear();
    for (Node& node : after.nodes_) {
      settle_data(node, fate, random);
      settle_names(node, fate, random);
    }
    return after;
  }

  int open(Path const& path, int flags, mode_t) override {
    int node = find(path);
    if (node < 0) {
      int const parent = find(path.parent_path());
      if ((flags & O_CREAT) == 0 || parent < 0) return failed(ENOENT);
      node = static_cast<int>(nodes_.size());
      nodes_.push_back({});
      change(parent, {{path.filename().string(), node}});
    }
    Node& found = nodes_[static_cast<std::size_t>(node)];
    if (found.directory && (flags & O_ACCMODE) != O_RDONLY) return failed(EISDIR);
    if (!found.directory && (flags & O_DIRECTORY) != 0) return failed(ENOTDIR);
    if ((flags & O_TRUNC) != 0) found.data.clear();
    open_[++last_descriptor_] = {node, 0, (flags & O_APPEND) != 0};
    return last_descriptor_;
  }

  ssize_t read(int descriptor, void* bytes, std::size_t size) override {
    auto const place = open_.find(descriptor);
    if (place == open_.end()) return failed(EBADF);
    std::string const& data = nodes_[static_cast<std::size_t>(place->second.node)].data;
    std::size_t const begin = std::min(place->second.offset, data.size());
    std::size_t const count = std::min(size, data.size() - begin);
    std::memcpy(bytes, data.data() + begin, count);
    place->second.offset = begin + count;
    return static_cast<ssize_t>(count);
  }

  ssize_t write(int descriptor, void const* bytes, std::size_t size) override {
    auto const place = open_.find(descriptor);
    if (place == open_.end()) return failed(EBADF);
    std::uint64_t const room = capacity - std::min(capacity, used());
    if (size > 0 && room == 0) return failed(ENOSPC);
    std::size_t const count = static_cast<std::size_t>(std::min<std::uint64_t>(size, room));
    std::string& data = nodes_[static_cast<std::size_t>(place->second.node)].data;
    std::size_t const begin = place->second.append ? data.size() : place->second.offset;
    data.resize(std::max(data.size(), begin + count));
    data.replace(begin, count, static_cast<char const*>(bytes), count);
    place->second.offset = begin + count;
    return static_cast<ssize_t>(count);
  }

  int sync(int descriptor) override {
    auto const place = open_.find(descriptor);
    if (place == open_.end()) return failed(EBADF);
    Node& node = nodes_[static_cast<std::size_t>(place->second.node)];
    node.safe_data = node.data;
    node.safe_names = node.names;
    node.unsafe_changes.clear();
    return 0;
  }

  int truncate(int descriptor, std::uint64_t size) override {
    auto const place = open_.find(descriptor);
    if (place == open_.end()) return failed(EBADF);
    nodes_[static_cast<std::size_t>(place->second.node)].data.resize(static_cast<std::size_t>(size));
    return 0;
  }

  int close(int descriptor) override { return open_.erase(descriptor) == 1 ? 0 : failed(EBADF); }

  int status(Path const& path, train::FileStatus& status) override {
    int const node = find(path);
    if (node < 0) return failed(ENOENT);
    Node const& found = nodes_[static_cast<std::size_t>(node)];
    status.kind = found.directory ? train::FileStatus::Kind::Directory : train::FileStatus::Kind::RegularFile;
    status.size = found.data.size();
    return 0;
  }

  int list(Path const& directory, std::vector<std::string>& names) override {
    int const node = find(directory);
    if (node < 0) return failed(ENOENT);
    names.clear();
    for (auto const& entry : nodes_[static_cast<std::size_t>(node)].names) names.push_back(entry.first);
    return 0;
  }

  int make_directory(Path const& path) override {
    int const parent = find(path.parent_path());
    if (find(path) >= 0) return failed(EEXIST);
    if (parent < 0) return failed(ENOENT);
    nodes_.push_back({.directory = true});
    change(parent, {{path.filename().string(), static_cast<int>(nodes_.size()) - 1}});
    return 0;
  }

  int remove_file(Path const& path) override { return remove(path, false); }
  int remove_directory(Path const& path) override { return remove(path, true); }

  int rename(Path const& from, Path const& to) override {
    int const node = find(from), target = find(to), parent = find(to.parent_path());
    if (node < 0 || parent < 0) return failed(ENOENT);
    if (from.parent_path() != to.parent_path()) return failed(EXDEV);
    if (target >= 0 && !nodes_[static_cast<std::size_t>(target)].names.empty()) return failed(ENOTEMPTY);
    change(parent, {{from.filename().string(), std::nullopt}, {to.filename().string(), node}});
    return 0;
  }

  int exchange(Path const& first, Path const& second) override {
    if (!can_exchange) return failed(ENOSYS);
    int const a = find(first), b = find(second);
    if (a < 0 || b < 0) return failed(ENOENT);
    if (first.parent_path() != second.parent_path()) return failed(EXDEV);
    change(find(first.parent_path()), {{first.filename().string(), b}, {second.filename().string(), a}});
    return 0;
  }

 private:
  using Names = std::map<std::string, int>;
  using Change = std::vector<std::pair<std::string, std::optional<int>>>;  // atomic: name to node, or gone

  struct Node {
    bool directory = false;
    int links = 1;
    std::string data{}, safe_data{};
    Names names{}, safe_names{};
    std::vector<Change> unsafe_changes{};  // to `names`, since the last sync
  };
  struct Opened {
    int node = -1;
    std::size_t offset = 0;
    bool append = false;
  };

  static int failed(int reason) {
    errno = reason;
    return -1;
  }

  [[nodiscard]] int find(Path const& path) const {
    int node = 0;
    for (Path const& part : path.relative_path()) {
      if (part.empty()) continue;
      Names const& names = nodes_[static_cast<std::size_t>(node)].names;
      auto const place = names.find(part.string());
      if (place == names.end()) return -1;
      node = place->second;
    }
    return node;
  }

  static void apply(Names& names, Change const& change) {
    for (auto const& [name, node] : change) {
      if (node) {
        names[name] = *node;
      } else {
        names.erase(name);
      }
    }
  }

  void change(int parent, Change change) {
    Node& directory = nodes_[static_cast<std::size_t>(parent)];
    apply(directory.names, change);
    directory.unsafe_changes.push_back(std::move(change));
  }

  int remove(Path const& path, bool directory) {
    int const node = find(path);
    if (node < 0) return failed(ENOENT);
    Node& found = nodes_[static_cast<std::size_t>(node)];
    if (found.directory != directory) return failed(directory ? ENOTDIR : EISDIR);
    if (!found.names.empty()) return failed(ENOTEMPTY);
    found.links = 0;
    change(find(path.parent_path()), {{path.filename().string(), std::nullopt}});
    return 0;
  }

  static void settle_data(Node& node, Unsynced fate, std::mt19937& random) {
    if (fate == Unsynced::Lost) node.data = node.safe_data;
    if (fate == Unsynced::Mixed && node.data != node.safe_data) {
      // Any length between, and any block new, old or never written.
      std::size_t const least = std::min(node.data.size(), node.safe_data.size());
      std::size_t const most = std::max(node.data.size(), node.safe_data.size());
      std::string torn(least + random() % (most - least + 1), '\0');
      for (std::size_t begin = 0; begin < torn.size(); begin += 16) {
        std::string const& source = random() % 2 == 0 ? node.data : node.safe_data;
        if (random() % 3 == 0 || begin >= source.size()) continue;
        std::size_t const count = std::min({std::size_t{16}, torn.size() - begin, source.size() - begin});
        torn.replace(begin, count, source, begin, count);
      }
      node.data = torn;
    }
    node.safe_data = node.data;
  }

  static void settle_names(Node& node, Unsynced fate, std::mt19937& random) {
    if (fate != Unsynced::Kept) {
      node.names = node.safe_names;
      for (Change const& change : node.unsafe_changes) {
        if (fate == Unsynced::Mixed && random() % 2 == 0) apply(node.names, change);
      }
    }
    node.safe_names = node.names;
    node.unsafe_changes.clear();
  }

  std::vector<Node> nodes_;
  std::map<int, Opened> open_;
  int last_descriptor_ = 2;
};

}  // namespace mor::test
