// SPDX-License-Identifier: Apache-2.0
/// @file
/// Everything that a CUDA program needs: models, policies and the CUDA backend. The host backend is not among it: nvcc
/// cannot read its vector code, so a program that wants both compiles the host part as plain C++.
#pragma once

#include "mor/backend/cuda/backend.cuh"
#include "mor/backend/cuda/scratch_size.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/infer/generate.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/select_rows.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"
#include "mor/train/adamw.hpp"
#include "mor/train/learning_rate.hpp"
