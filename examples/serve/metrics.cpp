// SPDX-License-Identifier: Apache-2.0
#include "serve/metrics.hpp"

#include "mor/io/html_text.hpp"

#include <algorithm>

namespace examples::serve {

namespace {

using mor::io::significant;

std::string head(std::string const& name, std::string const& help, char const* type) {
  return "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

std::string number(double value) {
  return significant(value, 15);
}

std::string label(std::string const& value) {
  std::string text;
  for (char const symbol : value) {
    if (symbol == '"' || symbol == '\\') text += '\\';
    if (static_cast<unsigned char>(symbol) >= 0x20) text += symbol;
  }
  return "\"" + text + "\"";
}

/// Methods are the client's words: of those that no address answers to there could be many.
std::string known_method(std::string const& method) {
  return method == "GET" || method == "POST" || method == "HEAD" ? method : "other";
}

}  // namespace

void Metrics::Histogram::add(double value) {
  auto const at = std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin();
  ++counts[static_cast<std::size_t>(at)];
  sum += value;
}

std::string Metrics::Histogram::text(std::string const& name, std::string const& help) const {
  std::string out = head(name, help, "histogram");
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    total += counts[i];
    std::string const bound = i < bounds.size() ? number(bounds[i]) : "+Inf";
    out += name + "_bucket{le=\"" + bound + "\"} " + std::to_string(total) + "\n";
  }
  return out + name + "_sum " + number(sum) + "\n" + name + "_count " + std::to_string(total) + "\n";
}

void Metrics::count_answer(std::string const& method, std::string const& path, int status) {
  std::lock_guard const lock(mutex_);
  ++answers_[{known_method(method), path.empty() ? "other" : path, status}];
}

void Metrics::count_prompt(std::size_t tokens) {
  std::lock_guard const lock(mutex_);
  prompt_tokens_ += tokens;
}

void Metrics::count_token(mor::Row depth) {
  std::lock_guard const lock(mutex_);
  auto const most = tokens_by_depth_.size() - 1;
  ++tokens_by_depth_[std::min(static_cast<std::size_t>(std::max<mor::Row>(depth, 0)), most)];
}

void Metrics::observe_first_token(Seconds time) {
  std::lock_guard const lock(mutex_);
  first_token_.add(time.count());
}

void Metrics::count_generation(std::string const& outcome, Seconds time) {
  std::lock_guard const lock(mutex_);
  ++generations_[outcome];
  whole_.add(time.count());
}

std::string Metrics::text(mor::Index inside, std::vector<EngineFigure> const& figures) const {
  std::lock_guard const lock(mutex_);
  std::string out = head("mor_http_requests_total", "Answers by address and status.", "counter");
  for (auto const& [key, count] : answers_) {
    auto const& [method, path, status] = key;
    out += "mor_http_requests_total{method=" + label(method) + ",path=" + label(path) + ",code=\"" +
           std::to_string(status) + "\"} " + std::to_string(count) + "\n";
  }
  out += head("mor_generations_total", "Generations that have ended, by outcome.", "counter");
  for (auto const& [outcome, count] : generations_) {
    out += "mor_generations_total{outcome=" + label(outcome) + "} " + std::to_string(count) + "\n";
  }
  out += head("mor_generations_inside", "Generations running or queued.", "gauge") + "mor_generations_inside " +
         std::to_string(inside) + "\n";
  out += head("mor_prompt_tokens_total", "Tokens of prompts.", "counter") + "mor_prompt_tokens_total " +
         std::to_string(prompt_tokens_) + "\n";
  out += head("mor_generated_tokens_total", "Generated tokens by the recursions that each took.", "counter");
  for (std::size_t depth = 0; depth < tokens_by_depth_.size(); ++depth) {
    out += "mor_generated_tokens_total{depth=\"" + std::to_string(depth) + "\"} " +
           std::to_string(tokens_by_depth_[depth]) + "\n";
  }
  out += first_token_.text("mor_first_token_seconds", "From a request's last byte to its first token.");
  out += whole_.text("mor_generation_seconds", "From a request's last byte to the end of its generation.");
  for (auto const& figure : figures) {
    std::string const name = "mor_engine_" + figure.name;
    out += head(name, figure.help, figure.counter ? "counter" : "gauge") + name + " " + number(figure.value) + "\n";
  }
  return out;
}

}  // namespace examples::serve
