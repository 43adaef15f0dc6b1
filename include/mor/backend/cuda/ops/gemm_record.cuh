// SPDX-License-Identifier: Apache-2.0
/// @file
/// The file in which searched algorithms are kept: one line a problem, keyed by device, library version and shape.
#pragma once

#include "mor/backend/cuda/ops/gemm_problem.cuh"

#include <cublasLt.h>

#include <cstring>
#include <fstream>
#include <string>
#include <unordered_map>
#include <utility>

namespace mor::cuda {

/// Choices of earlier runs. A line is "DEVICE | VERSION | PROBLEM | ALGORITHM", the last as the words of the library's
/// opaque structure in hexadecimal. Lines of other devices and versions, and lines that cannot be read, are passed over:
/// the file only saves time.
class GemmRecord {
 public:
  GemmRecord(std::string path, std::string const& device)
      : path_(std::move(path)), prefix_(device + " | " + std::to_string(cublasLtGetVersion()) + " | ") {
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with(prefix_)) continue;
      auto const end = line.rfind(" | ");
      if (end == std::string::npos || end < prefix_.size()) continue;
      cublasLtMatmulAlgo_t algorithm{};
      if (parse(line.substr(end + 3), algorithm)) {
        choices_[line.substr(prefix_.size(), end - prefix_.size())] = algorithm;
      }
    }
  }

  [[nodiscard]] cublasLtMatmulAlgo_t const* find(GemmProblem const& problem) const {
    if (choices_.empty()) return nullptr;
    auto const found = choices_.find(problem.text());
    return found == choices_.end() ? nullptr : &found->second;
  }

  /// Keeps a choice; a file that cannot be written is no error, since nothing but time depends on it.
  void add(GemmProblem const& problem, cublasLtMatmulAlgo_t const& algorithm) {
    if (path_.empty()) return;
    std::string const key = problem.text();
    choices_[key] = algorithm;
    std::ofstream(path_, std::ios::app) << prefix_ << key << " | " << text(algorithm) << "\n";
  }

 private:
  static constexpr std::size_t kWords = sizeof(cublasLtMatmulAlgo_t::data) / sizeof(std::uint64_t);

  static std::string text(cublasLtMatmulAlgo_t const& algorithm) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string result;
    for (std::uint64_t const word : algorithm.data) {
      if (!result.empty()) result += ' ';
      for (int shift = 60; shift >= 0; shift -= 4) result += digits[(word >> static_cast<unsigned>(shift)) & 15U];
    }
    return result;
  }
  static bool parse(std::string const& text, cublasLtMatmulAlgo_t& algorithm) {
    std::size_t word = 0, digits = 0;
    for (char const c : text) {
      if (c == ' ') {
        if (digits != 16) return false;
        ++word;
        digits = 0;
        continue;
      }
      bool const decimal = c >= '0' && c <= '9', letter = c >= 'a' && c <= 'f';
      if ((!decimal && !letter) || word >= kWords || digits == 16) return false;
      algorithm.data[word] = algorithm.data[word] << 4U | static_cast<std::uint64_t>(decimal ? c - '0' : c - 'a' + 10);
      ++digits;
    }
    return word == kWords - 1 && digits == 16;
  }

  std::string path_, prefix_;
  std::unordered_map<std::string, cublasLtMatmulAlgo_t> choices_;
};

}  // namespace mor::cuda
