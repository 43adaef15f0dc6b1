// SPDX-License-Identifier: Apache-2.0
#include "common/engine_holder.hpp"

namespace examples {

std::vector<EngineFigure> figures_of(mor::infer::EngineStatistics const& statistics) {
  std::vector<EngineFigure> figures;
  auto const add = [&](char const* name, char const* help, double value, bool counter) {
    figures.push_back({name, help, value, counter});
  };
  auto const gauge = [&](char const* name, char const* help, mor::Index value) {
    add(name, help, static_cast<double>(value), false);
  };
  auto const counter = [&](char const* name, char const* help, mor::Index value) {
    add(name, help, static_cast<double>(value), true);
  };
  auto const& s = statistics;
  gauge("running", "Requests in a slot.", s.running);
  gauge("queued", "Requests that wait for a slot or for room.", s.queued);
  counter("submitted_total", "Requests taken.", s.submitted);
  counter("finished_total", "Requests that came to their end.", s.finished);
  counter("cancelled_total", "Requests ended early by the client.", s.cancelled);
  counter("preempted_total", "Times that a request made room for others, to be computed again.", s.preempted);
  gauge("kv_pages", "Pages of keys and values of the recursion block.", s.total_pages);
  gauge("kv_pages_free", "Those that nothing uses.", s.free_pages);
  gauge("kv_end_pages", "Pages of keys and values of the layers around the block.", s.total_end_pages);
  gauge("kv_end_pages_free", "Those that nothing uses.", s.free_end_pages);
  gauge("prefix_pages", "Pages that are kept for prompts to come.", s.cached_pages);
  counter("prefix_hits_total", "Requests that began with kept keys.", s.prefix_hits);
  counter("prefix_tokens_total", "Prompt tokens that need not be read again.", s.prefix_tokens);
  counter("ticks_total", "Rounds of the recursion block.", s.ticks);
  counter("coda_ticks_total", "Those in which rows went through the last layers.", s.coda_ticks);
  counter("counted_ticks_total", "Those for which the host waited to know how many rows there are.", s.counted_ticks);
  counter("recursion_rows_total", "Recursions that tokens took.", s.recursion_rows);
  counter("launched_rows_total", "Rows launched for them, padding included.", s.launched_rows);
  counter("prompt_tokens_total", "Tokens of prompts that were read.", s.prompt_tokens);
  counter("new_tokens_total", "Tokens that were made.", s.new_tokens);
  add("mean_depth", "Recursions of a token on average.", s.mean_depth(), false);
  return figures;
}

}  // namespace examples
