// SPDX-License-Identifier: Apache-2.0
/// @file
/// Loading takes the memory of the model and not that of the file beside it, and the time of a copy. The file has 48
/// MB; MOR_TEST_FILE_MB makes it another size (500 for the promise in docs/formats.md).
#include "mor/io/safetensors_set.hpp"
#include "mor/model/model_tensors.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

using mor::Index;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

/// A number of kilobytes from /proc/self/status.
double kilobytes(std::string const& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::strtod(line.c_str() + field.size() + 1, nullptr);
  }
  return 0.0;
}

double cpu_seconds() {
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  auto const seconds = [](timeval const& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// What a process of its own measured while it ran `work`.
struct Cost {
  double bytes = 0.0;  ///< peak memory above that at the start
  double seconds = 0.0;
  bool succeeded = false;
};

template <class Work>
Cost cost_of(Work&& work) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Cost cost;
    double const before = kilobytes("VmRSS"), start = cpu_seconds();
    try {
      work();
      cost.succeeded = true;
    } catch (...) {
    }
    cost.seconds = cpu_seconds() - start;
    cost.bytes = 1024.0 * (kilobytes("VmHWM") - before);
    bool const told = ::write(ends[1], &cost, sizeof(cost)) == static_cast<ssize_t>(sizeof(cost));
    ::_exit(told ? 0 : 1);
  }
  ::close(ends[1]);
  Cost cost;
  bool const heard = ::read(ends[0], &cost, sizeof(cost)) == static_cast<ssize_t>(sizeof(cost));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(heard);
  return cost;
}

/// A layout of matrices, one of them much larger than the others, of that many bytes of float.
mor::ParameterLayout large_layout(Index bytes) {
  mor::ParameterLayout layout;
  Index const columns = 1024, rows = bytes / (4 * columns);
  layout.add_matrix("model.embed_tokens.weight", rows / 2, columns);
  for (Index i = 0; i < 8; ++i) layout.add_matrix("part." + std::to_string(i), rows / 16, columns);
  return layout;
}

void write_large(std::filesystem::path const& path, mor::ParameterLayout const& layout) {
  std::vector<mor::io::TensorSpec> specs;
  for (auto const& info : layout.all()) specs.push_back({info.name, mor::DType::F32, mor::file_shape(info)});
  mor::io::SafetensorsWriter writer(path, std::move(specs));
  std::vector<float> row(1024);
  for (Index i = 0; i < layout.total_size() / 1024; ++i) {
    std::fill(row.begin(), row.end(), static_cast<float>(i));
    writer.write(std::as_bytes(std::span<float const>(row)));
  }
  writer.commit();
}

}  // namespace

TEST_CASE("loading a large file takes the memory of the model and 5 %, and no more time than a few copies") {
  if (sanitized) SKIP("a sanitizer's memory hides the program's");
  char const* const wanted = std::getenv("MOR_TEST_FILE_MB");
  Index const megabytes = wanted != nullptr ? std::max<Index>(16, std::strtol(wanted, nullptr, 10)) : 48;
  mor::test::TemporaryFolder const folder;
  auto const path = folder / "large.safetensors";
  auto const layout = large_layout(megabytes * 1'000'000);
  write_large(path, layout);
  auto const size = static_cast<double>(std::filesystem::file_size(path));

  Cost const copy = cost_of([&] { static_cast<void>(mor::io::read_file(path)); });
  Cost const load = cost_of([&] {
    std::vector<float> model(static_cast<std::size_t>(layout.total_size()));
    mor::io::SafetensorsSet const set(path);
    std::vector<std::vector<std::string>> const aliases(static_cast<std::size_t>(layout.count()));
    mor::StoredModel const stored(set, layout, aliases);
    stored.load([&](Index first, std::span<float const> values) {
      std::copy(values.begin(), values.end(), model.begin() + first);
    });
    if (model[1023] != 0.0F || model[1024 * 17] != 17.0F) throw std::runtime_error("wrong values");
  });
  CAPTURE(size, load.bytes, load.seconds, copy.seconds);
  REQUIRE(load.succeeded);
  // Beside 5 %: two pieces of the reader, and what a program of any size takes for itself.
  REQUIRE(load.bytes < 1.05 * size + 10e6);
  REQUIRE(load.seconds < 8.0 * copy.seconds + 0.2);
}
