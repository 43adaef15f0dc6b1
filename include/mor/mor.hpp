// SPDX-License-Identifier: Apache-2.0
/// @file
/// Everything that needs no GPU: models, policies, the host backend and the trace backend, training and inference.
#pragma once

#include "mor/backend/host/backend.hpp"
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
