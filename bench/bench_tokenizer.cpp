// SPDX-License-Identifier: Apache-2.0
// Encoding and decoding English text on one core. The text and the tokenizers are those of the test data
// (MOR_TEST_DATA, or
// ../shared/data beside the project); without them, a vocabulary trained here on text made of English words. mb_per_s
// is the median of several runs over megabytes (1e6 bytes) of text.
#include "support/median.hpp"

#include "mor/io/bpe_trainer.hpp"
#include "mor/io/tokenizer.hpp"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace {

using mor::Token;
using mor::io::Tokenizer;

std::filesystem::path data_folder() {
  char const* const named = std::getenv("MOR_TEST_DATA");
  return named != nullptr ? std::filesystem::path(named) : std::filesystem::path("../shared/data");
}

bool present(std::filesystem::path const& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

/// English text: two books' worth of the test data, or sentences of common words in an order that does not repeat.
std::string const& english() {
  static std::string const text = [] {
    std::string all;
    for (char const* name : {"tinyshakespeare.txt", "wikitext-2.valid.txt"}) {
      if (present(data_folder() / "text" / name)) all += mor::io::read_file(data_folder() / "text" / name);
    }
    static constexpr std::string_view words[] = {"the",     "river", "rises",  "in",   "hills", "above",
                                                 "village", "where", "winter", "snow", "melts", "late",
                                                 "and",     "grass", "stays",  "wet"};
    unsigned state = 1;
    while (all.size() < (1U << 20)) {
      state = state * 1103515245 + 12345;
      all += words[(state >> 16) % std::size(words)];
      all += (state >> 20) % 12 == 0 ? ".\n" : " ";
    }
    return all;
  }();
  return text;
}

/// The tokenizer of a file in the test data; without it, one trained on the text.
Tokenizer load(char const* file) {
  auto const path = data_folder() / file;
  return present(path) ? Tokenizer::load(path) : mor::io::train_bpe(english(), 2048);
}

/// Runs `call` until the benchmark has enough, and reports the median.
template <class F>
void measure(benchmark::State& state, std::size_t bytes, F const& call) {
  std::vector<double> seconds;
  for (auto _ : state) {
    std::clock_t const start = std::clock();
    call();
    seconds.push_back(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
  }
  state.counters["mb_per_s"] = static_cast<double>(bytes) / 1e6 / mor::bench::median(seconds);
}

void encode(benchmark::State& state, char const* file) {
  Tokenizer const tokenizer = load(file);
  std::size_t tokens = 0;
  measure(state, english().size(), [&] { tokens = tokenizer.encode(english()).size(); });
  state.counters["bytes_per_token"] = static_cast<double>(english().size()) / static_cast<double>(tokens);
}

void decode(benchmark::State& state, char const* file) {
  Tokenizer const tokenizer = load(file);
  std::vector<Token> const ids = tokenizer.encode(english());
  measure(state, english().size(), [&] { benchmark::DoNotOptimize(tokenizer.decode(ids).data()); });
}

}  // namespace

BENCHMARK_CAPTURE(encode, smollm2, "tokenizers/smollm2/tokenizer.json")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, llama2, "tokenizers/llama2/tokenizer.model")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, tok512, "models/tok512.bin")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, smollm2, "tokenizers/smollm2/tokenizer.json")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(decode, llama2, "tokenizers/llama2/tokenizer.model")->Unit(benchmark::kMillisecond);
