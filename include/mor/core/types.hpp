// SPDX-License-Identifier: Apache-2.0
/// @file
/// Index types and the host/device annotation. The only header that looks at the CUDA compiler's macros.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define MOR_HOST_DEVICE __host__ __device__
#else
#define MOR_HOST_DEVICE
#endif

namespace mor {

using Index = std::int64_t;  ///< counts and offsets of elements; signed, so that differences are safe
using Token = std::int32_t;  ///< a token id
using Row = std::int32_t;    ///< the index of a row in a batch, a position in a sequence, or a length

}  // namespace mor
