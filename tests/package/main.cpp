// SPDX-License-Identifier: Apache-2.0
/// @file
/// A user's first program, built by every way of getting the library; see run_consumer.cmake.
#include <mor/mor.hpp>

#include <cstdio>

#if defined(EXPECT_OPENMP) && !defined(_OPENMP)
#error "the package forgot the flag without which the library has one thread"
#endif

int main() {
  mor::ModelConfig config;
  config.num_hidden_layers = 8;
  config.recursion.num_recursions = 3;
  config.recursion.num_prelude_layers = 1;
  config.recursion.num_coda_layers = 1;
  std::printf("%s layers in the recursion block\n", mor::text_of(config.block_layers()).c_str());
  return config.block_layers() == 2 ? 0 : 1;
}
