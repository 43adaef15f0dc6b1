// SPDX-License-Identifier: Apache-2.0
/// @file
/// Replaces `new` of the whole test program by one that counts; in a file of its own, so that nothing is inlined.
#include "train/allocation_count.hpp"

#include "support/catch.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
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

TEST_CASE("the test program counts allocations") {
  long const before = mor::test::allocation_count();
  void* const memory = ::operator new(10);
  long const after = mor::test::allocation_count();
  ::operator delete(memory);
  REQUIRE(after == before + 1);
}
