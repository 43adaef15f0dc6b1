// SPDX-License-Identifier: Apache-2.0
/// @file
/// `DocumentReader`: the documents of a text or of a JSON-lines file, one after another, from any document on.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/io/json.hpp"
#include "mor/io/mapped_file.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace mor::train {

/// How a file holds its documents.
enum class DocumentFormat {
  Whole,      ///< the file is one document
  Lines,      ///< a document a line
  Separated,  ///< documents with a line between them that is the separator; without one, the file is a document
  JsonLines   ///< a JSON object a line, with the text in one of its fields
};

/// @throws mor::error InvalidArgument listing the known names
[[nodiscard]] inline DocumentFormat parse_document_format(std::string_view text, std::string const& where = "format") {
  if (text == "whole") return DocumentFormat::Whole;
  if (text == "lines") return DocumentFormat::Lines;
  if (text == "separated") return DocumentFormat::Separated;
  if (text == "jsonl") return DocumentFormat::JsonLines;
  fail(ErrorCode::InvalidArgument, "unknown value", where, "whole, lines, separated or jsonl", printable(text));
}

struct DocumentRules {
  /// Nothing: JSON lines for names that end in .jsonl or .ndjson, else Separated.
  std::optional<DocumentFormat> format;
  std::string separator = "<|endoftext|>";  ///< the whole line, for Separated
  std::string field = "text";               ///< for JsonLines

  /// @throws mor::error InvalidArgument for a separator that is no line
  void check() const {
    if (!separator.empty() && separator.find('\n') == std::string::npos) return;
    fail(ErrorCode::InvalidArgument, "the separator is not a line", "DocumentRules: separator",
         "a text without line breaks", printable(separator));
  }
};

/// A document as it lies in its file. The bytes live as long as the reader.
struct RawDocument {
  std::string_view bytes;  ///< of JsonLines: the line
  Index begin = 0;         ///< first byte in the file; a reader that seeks there reads this document next
};

/// Reads one file, mapped into memory. Documents without a character that shows are left out.
class DocumentReader {
 public:
  /// @throws mor::error IoFailure, and as DocumentRules::check
  DocumentReader(std::filesystem::path path, DocumentRules rules)
      : path_(std::move(path)), rules_(std::move(rules)), mapping_(path_) {
    auto const extension = path_.extension();
    bool const json = extension == ".jsonl" || extension == ".ndjson";
    format_ = rules_.format.value_or(json ? DocumentFormat::JsonLines : DocumentFormat::Separated);
    rules_.check();
  }

  [[nodiscard]] std::filesystem::path const& path() const { return path_; }
  [[nodiscard]] Index size() const { return static_cast<Index>(text().size()); }  ///< bytes
  [[nodiscard]] Index position() const { return static_cast<Index>(at_); }        ///< bytes read

  /// Goes on at a byte where a document begins.
  void seek(Index byte) {
    if (byte < 0 || byte > size()) {
      fail(ErrorCode::InvalidArgument, "outside the file", path_.string(), "0 to " + text_of(size()), text_of(byte));
    }
    at_ = static_cast<std::size_t>(byte);
  }

  /// The next document; nothing at the end of the file.
  [[nodiscard]] std::optional<RawDocument> next() {
    while (at_ < text().size()) {
      std::size_t const begin = at_;
      std::string_view const bytes = take();
      if (bytes.find_first_not_of(" \t\r\n") != std::string_view::npos) return RawDocument{bytes, Index(begin)};
    }
    return std::nullopt;
  }

  /// The text of a document of this file; may be called from several threads.
  /// @throws mor::error MalformedFile naming the byte of the line and the field
  [[nodiscard]] std::string content(RawDocument const& document) const {
    if (format_ != DocumentFormat::JsonLines) return std::string(document.bytes);
    std::string const where = path_.string() + ": line at byte " + std::to_string(document.begin);
    auto const value = io::parse_json(document.bytes, where);
    return io::JsonObject(value, where).string(rules_.field);
  }

 private:
  [[nodiscard]] std::string_view text() const {
    auto const bytes = mapping_.bytes();
    return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
  }

  /// The bytes up to the end of the document, and moves behind it.
  [[nodiscard]] std::string_view take() {
    std::string_view const rest = text().substr(at_);
    if (format_ == DocumentFormat::Whole) {
      at_ = text().size();
      return rest;
    }
    if (format_ == DocumentFormat::Separated) return take_separated(rest);
    std::size_t const end = std::min(rest.find('\n'), rest.size());
    at_ += std::min(end + 1, rest.size());
    return without_line_break(rest.substr(0, end));
  }

  [[nodiscard]] std::string_view take_separated(std::string_view rest) {
    std::string const& separator = rules_.separator;
    for (std::size_t from = 0;;) {
      std::size_t const found = rest.find(separator, from);
      if (found == std::string_view::npos) {
        at_ = text().size();
        return rest;
      }
      std::string_view after = rest.substr(found + separator.size());
      if (after.starts_with("\r\n")) after.remove_prefix(1);
      bool const begins_line = found == 0 || rest[found - 1] == '\n';
      if (begins_line && (after.empty() || after.front() == '\n')) {
        at_ += rest.size() - after.size() + (after.empty() ? 0 : 1);
        std::string_view const before = rest.substr(0, found);
        return without_line_break(before.substr(0, before.size() - (before.empty() ? 0 : 1)));
      }
      from = found + separator.size();
    }
  }

  /// The line break's first half, where it has two.
  [[nodiscard]] static std::string_view without_line_break(std::string_view line) {
    return line.ends_with('\r') ? line.substr(0, line.size() - 1) : line;
  }

  std::filesystem::path path_;
  DocumentRules rules_;
  io::MappedFile mapping_;
  DocumentFormat format_ = DocumentFormat::Separated;
  std::size_t at_ = 0;
};

}  // namespace mor::train
