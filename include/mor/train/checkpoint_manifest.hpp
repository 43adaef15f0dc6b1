// SPDX-License-Identifier: Apache-2.0
/// @file
/// The manifest of a checkpoint: which files it has, how long they are, and their checksums; with a checksum of itself.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/train/crc32c.hpp"
#include "mor/train/durable_files.hpp"
#include "mor/train/strict_fields.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mor::train {

/// One line of a manifest.
struct ManifestEntry {
  std::string name;  ///< a plain file name
  FileDigest digest;
  bool operator==(ManifestEntry const&) const = default;
};

/// The content of `manifest.json`:
/// `{"format": "mor-checkpoint-1", "step": N, "files": [{"name", "size", "crc32c"}...], "crc32c"}`, checksums as eight
/// lower-case hexadecimal digits; the last one covers all the other values.
struct CheckpointManifest {
  Index step = 0;
  std::vector<ManifestEntry> files;
  bool operator==(CheckpointManifest const&) const = default;
};

inline constexpr char kManifestName[] = "manifest.json";

namespace detail {

/// Eight lower-case hexadecimal digits.
[[nodiscard]] inline std::string hexadecimal(std::uint32_t value) {
  std::string text(8, '0');
  for (std::size_t i = 8; i-- > 0; value >>= 4U) text[i] = "0123456789abcdef"[value & 15U];
  return text;
}

[[nodiscard]] inline std::optional<std::uint32_t> parse_hexadecimal(std::string_view text) {
  if (text.size() != 8) return std::nullopt;
  std::uint32_t value = 0;
  for (char const c : text) {
    std::size_t const digit = std::string_view("0123456789abcdef").find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    value = value << 4U | static_cast<std::uint32_t>(digit);
  }
  return value;
}

/// A name that stays inside its folder and cannot be confused with the protocol's own files.
[[nodiscard]] inline bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.front() == '.' || name == kManifestName) return false;
  for (char const c : name) {
    bool const letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

/// What the manifest's own checksum covers: every value in one fixed layout, so that it does not depend on how the
/// JSON is spaced.
[[nodiscard]] inline std::uint32_t manifest_checksum(CheckpointManifest const& manifest) {
  std::string text = "mor-checkpoint-1 " + std::to_string(manifest.step) + "\n";
  for (ManifestEntry const& entry : manifest.files) {
    text += entry.name + " " + std::to_string(entry.digest.size) + " " + hexadecimal(entry.digest.crc32c) + "\n";
  }
  return crc32c(std::as_bytes(std::span<char const>(text.data(), text.size())));
}

[[nodiscard]] inline Field checksum_field(std::string_view name, std::uint32_t& into) {
  return {name, [&into](Scanner& scanner) {
            into = read_parsed(scanner, "a string of eight lower-case hexadecimal digits", parse_hexadecimal);
          }};
}

[[nodiscard]] inline ManifestEntry read_manifest_entry(Scanner& scanner) {
  ManifestEntry entry;
  Index size = 0;
  auto const parse_name = [](std::string_view text) {
    return is_plain_file_name(text) ? std::optional<std::string>(text) : std::nullopt;
  };
  auto const read_name = [&](Scanner& from) {
    entry.name = read_parsed(from, "a plain file name of letters, digits, '.', '_', '-'", parse_name);
  };
  read_fields(scanner, "a file of the manifest",
              {{"name", read_name}, integer_field("size", size), checksum_field("crc32c", entry.digest.crc32c)});
  entry.digest.size = static_cast<std::uint64_t>(size);
  return entry;
}

/// The list of files: at least one, none twice.
[[nodiscard]] inline std::vector<ManifestEntry> read_manifest_files(Scanner& scanner) {
  std::vector<ManifestEntry> files;
  scanner.expect('[', "the list of files");
  do {
    std::size_t const begin = scanner.at();
    files.push_back(read_manifest_entry(scanner));
    for (std::size_t i = 0; i + 1 < files.size(); ++i) {
      if (files[i].name == files.back().name) {
        scanner.refuse_at(begin, "a file is listed twice", "different names", files.back().name);
      }
    }
  } while (scanner.take(','));
  scanner.expect(']', "the list of files");
  return files;
}

}  // namespace detail

/// The manifest as JSON text.
[[nodiscard]] inline std::string to_json(CheckpointManifest const& manifest) {
  std::string text = "{\n  \"format\": \"mor-checkpoint-1\",\n  \"step\": " + std::to_string(manifest.step) +
                     ",\n  \"files\": [";
  for (std::size_t i = 0; i < manifest.files.size(); ++i) {
    ManifestEntry const& entry = manifest.files[i];  // names need no escapes: see is_plain_file_name
    text += i == 0 ? "\n" : ",\n";
    text += "    {\"name\": \"" + entry.name + "\", \"size\": " + std::to_string(entry.digest.size) +
            ", \"crc32c\": \"" + detail::hexadecimal(entry.digest.crc32c) + "\"}";
  }
  return text + "\n  ],\n  \"crc32c\": \"" + detail::hexadecimal(detail::manifest_checksum(manifest)) + "\"\n}\n";
}

/// Reads a manifest, strictly.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile naming the byte and the field
[[nodiscard]] inline CheckpointManifest parse_manifest(std::string_view text, std::string const& file) {
  detail::Scanner scanner = detail::scan_fields(text, file);
  CheckpointManifest manifest;
  std::uint32_t checksum = 0;
  detail::read_fields(
      scanner, "the manifest",
      {detail::constant_field("format", "mor-checkpoint-1"), detail::integer_field("step", manifest.step),
       {"files", [&](detail::Scanner& from) { manifest.files = detail::read_manifest_files(from); }},
       detail::checksum_field("crc32c", checksum)});
  scanner.expect_end("the manifest");
  std::uint32_t const expected = detail::manifest_checksum(manifest);
  if (checksum != expected) {
    fail(ErrorCode::MalformedFile, "the manifest's own checksum does not match", file + ": field crc32c",
         detail::hexadecimal(expected), detail::hexadecimal(checksum));
  }
  return manifest;
}

}  // namespace mor::train
