// SPDX-License-Identifier: Apache-2.0
/// @file
/// The safetensors format: SafetensorsFile reads, SafetensorsWriter and write_safetensors write. Models that may be
/// spread over several files: safetensors_set.hpp.
#pragma once

#include "mor/io/safetensors_file.hpp"
#include "mor/io/safetensors_writer.hpp"
