// SPDX-License-Identifier: Apache-2.0
/// @file
/// `AnyEngine`: a serving engine whose model, cache and backend were chosen at run time. What a server, or anything
/// else that answers many requests at once, is written against.
#pragma once

#include "mor/infer/request.hpp"

#include <span>
#include <string>
#include <vector>

namespace examples {

/// One number about a running engine, for people and for monitoring.
struct EngineFigure {
  std::string name;  ///< in snake case, with its unit: kv_pages_free
  std::string help;  ///< one line
  double value = 0.0;
  bool counter = false;  ///< never falls while the engine lives
};

/// The calls of `mor::infer::Engine` with the types erased. One thread at a time may be in them.
class AnyEngine {
 public:
  virtual ~AnyEngine() = default;
  AnyEngine(AnyEngine const&) = delete;
  AnyEngine& operator=(AnyEngine const&) = delete;

  /// @throws mor::error InvalidArgument for a request that could never be answered
  virtual mor::infer::RequestId submit(mor::infer::Request request) = 0;
  /// The request's Finished event comes with a later `step`. False where it has ended already.
  virtual bool cancel(mor::infer::RequestId id) = 0;
  /// One tick. The events are valid until the next call.
  virtual std::span<mor::infer::Event const> step() = 0;
  [[nodiscard]] virtual bool idle() const = 0;
  [[nodiscard]] virtual std::vector<EngineFigure> figures() const = 0;

 protected:
  AnyEngine() = default;
};

}  // namespace examples
