// SPDX-License-Identifier: Apache-2.0
/// @file
/// Replaces every form of `new` in the whole test program by one that counts; in a file of its own, so that nothing is
/// inlined, and named like a test so that the build takes it along.
#include "train/allocation_count.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long> count{0};

void* counted(std::size_t size, std::size_t alignment = 0) noexcept {
  ++count;
  std::size_t const wanted = size == 0 ? 1 : size;
  if (alignment == 0) return std::malloc(wanted);
  return std::aligned_alloc(alignment, (wanted + alignment - 1) / alignment * alignment);
}

void* checked(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

long mor::test::allocation_count() { return count; }

using Alignment = std::align_val_t;
using NoThrow = std::nothrow_t;

void* operator new(std::size_t size) { return checked(counted(size)); }
void* operator new[](std::size_t size) { return checked(counted(size)); }
void* operator new(std::size_t size, NoThrow const&) noexcept { return counted(size); }
void* operator new[](std::size_t size, NoThrow const&) noexcept { return counted(size); }
void* operator new(std::size_t size, Alignment at) { return checked(counted(size, static_cast<std::size_t>(at))); }
void* operator new[](std::size_t size, Alignment at) { return checked(counted(size, static_cast<std::size_t>(at))); }
void* operator new(std::size_t size, Alignment at, NoThrow const&) noexcept {
  return counted(size, static_cast<std::size_t>(at));
}
void* operator new[](std::size_t size, Alignment at, NoThrow const&) noexcept {
  return counted(size, static_cast<std::size_t>(at));
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, NoThrow const&) noexcept { std::free(memory); }
void operator delete[](void* memory, NoThrow const&) noexcept { std::free(memory); }
void operator delete(void* memory, Alignment) noexcept { std::free(memory); }
void operator delete[](void* memory, Alignment) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, Alignment) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, Alignment) noexcept { std::free(memory); }
void operator delete(void* memory, Alignment, NoThrow const&) noexcept { std::free(memory); }
void operator delete[](void* memory, Alignment, NoThrow const&) noexcept { std::free(memory); }
