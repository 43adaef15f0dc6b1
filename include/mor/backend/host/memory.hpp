// SPDX-License-Identifier: Apache-2.0
/// @file
/// Aligned heap memory with a count of what is in use, for the host backend.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/types.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace mor::host {

/// What a backend's memory resource has handed out so far.
struct MemoryStatistics {
  Index current_bytes = 0;
  Index peak_bytes = 0;
  Index allocations = 0;  ///< how often memory was asked for; constant once a program has warmed up
};

/// Gives memory aligned to `kAlignment`. Lives at a fixed address, because buffers keep a pointer to it.
class HostMemory {
 public:
  HostMemory() = default;
  HostMemory(HostMemory const&) = delete;
  HostMemory& operator=(HostMemory const&) = delete;

  [[nodiscard]] MemoryResource resource() { return {this, &allocate, &deallocate, true}; }
  [[nodiscard]] MemoryStatistics const& statistics() const { return statistics_; }

 private:
  static void* allocate(void* context, Index bytes) {
    auto& self = *static_cast<HostMemory*>(context);
    Index const size = std::max(mor::detail::aligned(bytes), kAlignment);
    void* const pointer = std::aligned_alloc(static_cast<std::size_t>(kAlignment), static_cast<std::size_t>(size));
    if (pointer == nullptr) {
      fail(ErrorCode::OutOfMemory, "the system gave no memory", "host::Backend", text_of(bytes) + " bytes",
           text_of(self.statistics_.current_bytes) + " bytes already in use");
    }
    self.statistics_.current_bytes += size;
    self.statistics_.peak_bytes = std::max(self.statistics_.peak_bytes, self.statistics_.current_bytes);
    ++self.statistics_.allocations;
    return pointer;
  }

  static void deallocate(void* context, void* pointer, Index bytes) {
    auto& self = *static_cast<HostMemory*>(context);
    self.statistics_.current_bytes -= std::max(mor::detail::aligned(bytes), kAlignment);
    std::free(pointer);
  }

  MemoryStatistics statistics_;
};

}  // namespace mor::host
