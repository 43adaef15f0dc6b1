// SPDX-License-Identifier: Apache-2.0
/// @file
/// A trace as a table: one line a verb, with calls, FLOPs, bytes and arithmetic intensity.
#pragma once

#include "mor/backend/trace/record.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <iomanip>
#include <locale>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace mor::trace {

/// All calls of one verb together.
struct VerbSummary {
  std::string_view name;
  Index calls = 0;
  Index flops = 0;
  Index bytes = 0;

  /// FLOPs a byte of traffic: below a machine's ridge point the verb waits for memory.
  [[nodiscard]] double intensity() const {
    return bytes > 0 ? static_cast<double>(flops) / static_cast<double>(bytes) : 0.0;
  }
};

/// One summary a verb, in order of the first call.
[[nodiscard]] inline std::vector<VerbSummary> summarize(std::span<Operation const> operations) {
  std::vector<VerbSummary> summaries;
  for (auto const& operation : operations) {
    auto found = std::find_if(summaries.begin(), summaries.end(),
                              [&](VerbSummary const& summary) { return summary.name == operation.name; });
    if (found == summaries.end()) found = summaries.insert(summaries.end(), VerbSummary{operation.name, 0, 0, 0});
    found->calls += 1;
    found->flops += operation.flops;
    found->bytes += operation.bytes();
  }
  return summaries;
}

/// The summaries as an aligned table with a line of totals: calls, 10^9 FLOPs, 10^6 bytes, FLOPs a byte.
[[nodiscard]] inline std::string format_table(std::span<VerbSummary const> summaries) {
  VerbSummary total{"total", 0, 0, 0};
  std::size_t width = total.name.size();
  for (auto const& summary : summaries) {
    width = std::max(width, summary.name.size());
    total.calls += summary.calls;
    total.flops += summary.flops;
    total.bytes += summary.bytes;
  }
  std::ostringstream out;
  out.imbue(std::locale::classic());
  auto const name_width = static_cast<int>(width);
  out << std::left << std::setw(name_width) << "verb" << std::right << std::setw(8) << "calls" << std::setw(14)
      << "GFLOP" << std::setw(14) << "MB" << std::setw(10) << "FLOP/B" << '\n';
  auto const line = [&](VerbSummary const& summary) {
    out << std::left << std::setw(name_width) << summary.name << std::right << std::setw(8) << summary.calls
        << std::fixed << std::setprecision(3) << std::setw(14) << static_cast<double>(summary.flops) * 1e-9
        << std::setw(14) << static_cast<double>(summary.bytes) * 1e-6 << std::setprecision(2) << std::setw(10)
        << summary.intensity() << '\n';
  };
  for (auto const& summary : summaries) line(summary);
  line(total);
  return std::move(out).str();
}

}  // namespace mor::trace
