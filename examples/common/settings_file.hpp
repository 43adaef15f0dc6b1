// SPDX-License-Identifier: Apache-2.0
/// @file
/// Options in a file, `settings.toml`: a line `key = value` each. Every value comes back as it was given.
#pragma once

#include <CLI/CLI.hpp>

#include <iosfwd>
#include <string>
#include <vector>

namespace examples {

/// The part of TOML that a command line needs: comments, numbers, words, strings in either quotes, lists of these.
///
/// CLI11's own reader takes what it does not know for nothing, and its writer escapes nothing.
class SettingsFormat : public CLI::Config {
 public:
  /// @param app  whose options the file may set, all but those that are not configurable; must outlive this
  explicit SettingsFormat(CLI::App const& app) : app_(app) {}

  /// The options that were given. Defaults and descriptions are never written.
  std::string to_config(CLI::App const* app, bool default_also, bool write_description,
                        std::string prefix) const override;

  /// @throws mor::error MalformedFile naming the file and the line, for an unknown key, a section, and anything else
  ///         that is not a setting
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;

 private:
  CLI::App const& app_;
};

}  // namespace examples
