// SPDX-License-Identifier: Apache-2.0
/// @file
/// The names that configuration files and command lines use for the choices of config.hpp, both ways.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"

#include <array>
#include <string>
#include <string_view>

namespace mor {

/// A choice and its name.
template <class Enum>
struct NamedValue {
  Enum value;
  std::string_view name;
};

/// The names of an enumeration: `field` is the configuration field that holds it, `values` lists every enumerator.
template <class Enum>
struct EnumNames;

template <>
struct EnumNames<RouterKind> {
  static constexpr std::string_view field = "router";
  static constexpr std::array<NamedValue<RouterKind>, 3> values{{{RouterKind::AllTokens, "all_tokens"},
                                                                 {RouterKind::ExpertChoice, "expert_choice"},
                                                                 {RouterKind::TokenChoice, "token_choice"}}};
};

template <>
struct EnumNames<RouterNetwork> {
  static constexpr std::string_view field = "router_network";
  static constexpr std::array<NamedValue<RouterNetwork>, 3> values{
      {{RouterNetwork::Linear, "linear"}, {RouterNetwork::Mlp, "mlp"}, {RouterNetwork::WideMlp, "wide_mlp"}}};
};

template <>
struct EnumNames<RouterActivation> {
  static constexpr std::string_view field = "router_activation";
  static constexpr std::array<NamedValue<RouterActivation>, 4> values{{{RouterActivation::Sigmoid, "sigmoid"},
                                                                       {RouterActivation::Tanh, "tanh"},
                                                                       {RouterActivation::Softmax, "softmax"},
                                                                       {RouterActivation::None, "none"}}};
};

template <>
struct EnumNames<Gating> {
  static constexpr std::string_view field = "gating";
  static constexpr std::array<NamedValue<Gating>, 2> values{
      {{Gating::Weighted, "weighted"}, {Gating::Additive, "additive"}}};
};

template <>
struct EnumNames<RouterSampling> {
  static constexpr std::string_view field = "sampling";
  static constexpr std::array<NamedValue<RouterSampling>, 2> values{
      {{RouterSampling::AuxLoss, "aux_loss"}, {RouterSampling::AuxRouter, "aux_router"}}};
};

template <>
struct EnumNames<Balancing> {
  static constexpr std::string_view field = "balancing";
  static constexpr std::array<NamedValue<Balancing>, 3> values{
      {{Balancing::None, "none"}, {Balancing::Loss, "loss"}, {Balancing::LossFree, "loss_free"}}};
};

template <>
struct EnumNames<CacheKind> {
  static constexpr std::string_view field = "cache";
  static constexpr std::array<NamedValue<CacheKind>, 3> values{
      {{CacheKind::RecursionWise, "recursion_wise"}, {CacheKind::Shared, "shared"}, {CacheKind::Hybrid, "hybrid"}}};
};

template <>
struct EnumNames<SharingKind> {
  static constexpr std::string_view field = "sharing";
  static constexpr std::array<NamedValue<SharingKind>, 5> values{{{SharingKind::None, "none"},
                                                                  {SharingKind::Cycle, "cycle"},
                                                                  {SharingKind::MiddleCycle, "middle_cycle"},
                                                                  {SharingKind::Sequence, "sequence"},
                                                                  {SharingKind::MiddleSequence, "middle_sequence"}}};
};

template <>
struct EnumNames<RoutingMode> {
  static constexpr std::string_view field = "routing";
  static constexpr std::array<NamedValue<RoutingMode>, 4> values{{{RoutingMode::TopK, "topk"},
                                                                  {RoutingMode::Threshold, "threshold"},
                                                                  {RoutingMode::AuxRouter, "aux_router"},
                                                                  {RoutingMode::FullDepth, "full_depth"}}};
};

/// The name of a choice, as files and command lines spell it.
template <class Enum>
requires requires {
  EnumNames<Enum>::values;
}
[[nodiscard]] constexpr std::string_view to_text(Enum value) noexcept {
  for (auto const& named : EnumNames<Enum>::values) {
    if (named.value == value) return named.name;
  }
  return "unknown";
}

/// All names of an enumeration: "linear, mlp, wide_mlp".
template <class Enum>
requires requires {
  EnumNames<Enum>::values;
}
[[nodiscard]] std::string known_names() {
  std::string names;
  for (auto const& named : EnumNames<Enum>::values) names += (names.empty() ? "" : ", ") + std::string(named.name);
  return names;
}

/// The choice with that name.
/// @param where  file and field, or command-line option, for the message
/// @throws mor::error InvalidConfig that lists the known names
template <class Enum>
requires requires {
  EnumNames<Enum>::values;
}
[[nodiscard]] Enum parse_choice(std::string_view text, std::string const& where) {
  for (auto const& named : EnumNames<Enum>::values) {
    if (named.name == text) return named.value;
  }
  fail(ErrorCode::InvalidConfig, "unknown value", where, "one of " + known_names<Enum>(), printable(text));
}

/// @name `parse_choice` by name
/// @{
[[nodiscard]] inline RouterKind parse_router_kind(std::string_view text, std::string const& where = "router") {
  return parse_choice<RouterKind>(text, where);
}
[[nodiscard]] inline RouterNetwork parse_router_network(std::string_view text,
                                                        std::string const& where = "router_network") {
  return parse_choice<RouterNetwork>(text, where);
}
[[nodiscard]] inline RouterActivation parse_router_activation(std::string_view text,
                                                              std::string const& where = "router_activation") {
  return parse_choice<RouterActivation>(text, where);
}
[[nodiscard]] inline Gating parse_gating(std::string_view text, std::string const& where = "gating") {
  return parse_choice<Gating>(text, where);
}
[[nodiscard]] inline RouterSampling parse_router_sampling(std::string_view text,
                                                          std::string const& where = "sampling") {
  return parse_choice<RouterSampling>(text, where);
}
[[nodiscard]] inline Balancing parse_balancing(std::string_view text, std::string const& where = "balancing") {
  return parse_choice<Balancing>(text, where);
}
[[nodiscard]] inline CacheKind parse_cache_kind(std::string_view text, std::string const& where = "cache") {
  return parse_choice<CacheKind>(text, where);
}
[[nodiscard]] inline SharingKind parse_sharing_kind(std::string_view text, std::string const& where = "sharing") {
  return parse_choice<SharingKind>(text, where);
}
[[nodiscard]] inline RoutingMode parse_routing_mode(std::string_view text, std::string const& where = "routing") {
  return parse_choice<RoutingMode>(text, where);
}
/// @}

}  // namespace mor
