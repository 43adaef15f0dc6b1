// SPDX-License-Identifier: Apache-2.0
/// @file
/// The safetensors format: SafetensorsFile reads, SafetensorsWriter and write_safetensors write.
#pragma once

#include "mor/io/safetensors_file.hpp"
#include "mor/io/safetensors_writer.hpp"
