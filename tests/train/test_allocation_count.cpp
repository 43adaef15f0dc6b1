// SPDX-License-Identifier: Apache-2.0
/// @file
/// Replaces `new` of the whole test program by one that counts; in a file of its own, so that
/// nothing is inlined. Named like a test so that the build takes it along.
#include "train/allocation_count.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {
std::atomic<long> count{0};
}  // namespace

long mor::test::allocation_count() { return count; }

[[gnu::noinline]] void* operator new(std::size_t size) {
  ++count;
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
