// SPDX-License-Identifier: Apache-2.0
/// @file
/// The one exception of the library, and the helpers that throw it. Headers never print, exit or abort.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace mor {

/// What kind of failure an `error` reports. Programs branch on this; people read the message.
enum class ErrorCode {
  InvalidArgument,  ///< a value given by the caller is out of range or inconsistent
  InvalidConfig,    ///< a model or training configuration cannot work
  ShapeMismatch,    ///< two tensors, or a tensor and its file, disagree
  IoFailure,        ///< the operating system refused a file operation
  MalformedFile,    ///< the bytes of a file do not follow its format
  OutOfMemory,      ///< an allocation failed or a fixed capacity is exhausted
  NonFinite,        ///< NaN or infinity where a finite number is required
  Unsupported,      ///< a valid request that this build or backend cannot serve
  DeviceFailure     ///< an accelerator or one of its libraries reported an error
};

/// The text name of a code, as it appears in logs.
[[nodiscard]] inline std::string_view to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::InvalidArgument: return "invalid argument";
    case ErrorCode::InvalidConfig: return "invalid configuration";
    case ErrorCode::ShapeMismatch: return "shape mismatch";
    case ErrorCode::IoFailure: return "input/output failure";
    case ErrorCode::MalformedFile: return "malformed file";
    case ErrorCode::OutOfMemory: return "out of memory";
    case ErrorCode::NonFinite: return "non-finite value";
    case ErrorCode::Unsupported: return "unsupported";
    case ErrorCode::DeviceFailure: return "device failure";
  }
  return "unknown";
}

/// Every failure the library reports: what went wrong, where, what was expected and what was found.
///
/// `what()` joins the parts into one line: `WHERE: WHAT (expected EXPECTED, got GOT)`.
class error : public std::runtime_error {
 public:
  /// @param code      the kind of failure
  /// @param what      one clause in plain words, without the place
  /// @param where     operation, file, tensor or field
  /// @param expected  what would have been accepted; may be empty
  /// @param got       what was found; may be empty
  error(ErrorCode code, std::string what, std::string where, std::string expected = {}, std::string got = {})
      : std::runtime_error(compose(what, where, expected, got)),
        code_(code),
        problem_(std::move(what)),
        where_(std::move(where)),
        expected_(std::move(expected)),
        got_(std::move(got)) {}

  [[nodiscard]] ErrorCode code() const noexcept { return code_; }
  [[nodiscard]] std::string const& problem() const noexcept { return problem_; }
  [[nodiscard]] std::string const& where() const noexcept { return where_; }
  [[nodiscard]] std::string const& expected() const noexcept { return expected_; }
  [[nodiscard]] std::string const& got() const noexcept { return got_; }

 private:
  static std::string compose(std::string const& what, std::string const& where, std::string const& expected,
                             std::string const& got) {
    std::string text = where.empty() ? what : where + ": " + what;
    if (!expected.empty() && !got.empty()) return text + " (expected " + expected + ", got " + got + ")";
    if (!expected.empty()) return text + " (expected " + expected + ")";
    if (!got.empty()) return text + " (got " + got + ")";
    return text;
  }

  ErrorCode code_;
  std::string problem_, where_, expected_, got_;
};

/// Text of any streamable value, for the `expected` and `got` parts of an error.
template <class T>
[[nodiscard]] std::string text_of(T const& value) {
  std::ostringstream out;
  out << value;
  return std::move(out).str();
}

/// Throws `error`; a function of its own so that call sites stay small.
[[noreturn]] inline void fail(ErrorCode code, std::string what, std::string where, std::string expected = {},
                              std::string got = {}) {
  throw error(code, std::move(what), std::move(where), std::move(expected), std::move(got));
}

/// Throws InvalidArgument when `condition` is false.
inline void require(bool condition, char const* what, char const* where) {
  if (!condition) fail(ErrorCode::InvalidArgument, what, where);
}

}  // namespace mor
