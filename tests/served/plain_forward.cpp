// SPDX-License-Identifier: Apache-2.0
#include "served/plain_forward.hpp"

#include "mor/contract/router.hpp"
#include "mor/model/tensor_names.hpp"

#include <algorithm>
#include <cmath>

namespace mor::test {
namespace {

using Vector = std::vector<double>;

Vector operator*(std::vector<float> const& matrix, Vector const& x) {
  Vector out(matrix.size() / x.size(), 0.0);
  for (std::size_t i = 0; i < matrix.size(); ++i) out[i / x.size()] += static_cast<double>(matrix[i]) * x[i % x.size()];
  return out;
}
Vector operator+(Vector a, Vector const& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}
Vector operator*(double scale, Vector x) {
  for (double& value : x) value *= scale;
  return x;
}
double dot(double const* a, double const* b, Index n) {
  double sum = 0.0;
  for (Index i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

struct KeyValue {
  Vector k, v;
};

class Plain {
 public:
  Plain(Served const& served, std::vector<Token> const& text, PlainRules const& rules)
      : config_(served.config()),
        t_(config_.transformer),
        schedule_(served.schedule()),
        weights_(served.weights()),
        text_(text),
        rules_(rules),
        naming_(naming()) {
    most_ = rules_.knobs.max_depth == 0 ? schedule_.num_recursions() : rules_.knobs.max_depth;
    bool const all = config_.recursion.router == RouterKind::AllTokens || rules_.mode == RoutingMode::FullDepth;
    least_ = all ? most_ : rules_.knobs.min_depth;
  }

  PlainPass run() {
    auto const& embedding = weights_.at("model.embed_tokens.weight");
    for (Token const token : text_) {
      auto const begin = embedding.begin() + token * t_.hidden_size;
      x_.emplace_back(begin, begin + t_.hidden_size);
    }
    std::vector<std::size_t> everyone(text_.size());
    for (std::size_t i = 0; i < everyone.size(); ++i) everyone[i] = i;
    auto const prefixes = layer_prefixes(naming_, schedule_);
    std::size_t unrolled = 0;
    for (std::size_t l = 0; l < schedule_.prelude.size(); ++l) unique_layer(prefixes[unrolled++], everyone);
    recursions(prefixes, unrolled, everyone);
    unrolled += static_cast<std::size_t>(schedule_.num_recursions() * schedule_.block_layers());
    for (std::size_t l = 0; l < schedule_.coda.size(); ++l) unique_layer(prefixes[unrolled++], everyone);
    for (Vector const& x : x_) pass_.log_probabilities.push_back(log_softmax(head() * normed(x, "model.norm.weight")));
    return pass_;
  }

 private:
  [[nodiscard]] LayerNaming naming() const {
    switch (config_.recursion.router) {
      case RouterKind::ExpertChoice: return LayerNaming::BlockPerRecursion;
      case RouterKind::TokenChoice: return LayerNaming::BlockList;
      default: return LayerNaming::Unrolled;
    }
  }
  [[nodiscard]] std::vector<float> const& head() const {
    return weights_.at(t_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  }
  [[nodiscard]] Vector normed(Vector const& x, std::string const& name) const {
    auto const& weight = weights_.at(name);
    double const scale =
        1.0 / std::sqrt(dot(x.data(), x.data(), t_.hidden_size) / static_cast<double>(x.size()) + t_.rms_norm_eps);
    Vector out(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * static_cast<double>(weight[i]);
    return out;
  }
  static Vector log_softmax(Vector logits) {
    double const most = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (double const z : logits) sum += std::exp(z - most);
    for (double& z : logits) z -= most + std::log(sum);
    return logits;
  }
  void rotate(Vector& x, std::size_t position) const {
    Index const half = t_.head_dim / 2;
    for (std::size_t first = 0; first < x.size(); first += static_cast<std::size_t>(t_.head_dim)) {
      for (Index i = 0; i < half; ++i) {
        double const angle = static_cast<double>(position) *
                             std::pow(t_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(t_.head_dim));
        double& a = x[first + static_cast<std::size_t>(i)];
        double& b = x[first + static_cast<std::size_t>(i + half)];
        double const old = a;
        a = old * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + old * std::sin(angle);
      }
    }
  }
  [[nodiscard]] std::vector<float> const& weight(std::string const& layer, char const* name) const {
    return weights_.at(layer + name + ".weight");
  }
  [[nodiscard]] KeyValue project(std::string const& layer, std::size_t position, Vector const& x) const {
    auto const in = normed(x, layer + "input_layernorm.weight");
    KeyValue own{weight(layer, "self_attn.k_proj") * in, weight(layer, "self_attn.v_proj") * in};
    rotate(own.k, position);
    return own;
  }
  /// The layer's output for a token that sees these keys.
  [[nodiscard]] Vector layer(std::string const& layer, std::size_t position, Vector const& x,
                             std::vector<KeyValue const*> const& seen) const {
    auto q = weight(layer, "self_attn.q_proj") * normed(x, layer + "input_layernorm.weight");
    rotate(q, position);
    Index const e = t_.head_dim, group = t_.num_attention_heads / t_.num_key_value_heads;
    Vector attended(q.size(), 0.0);
    for (Index h = 0; h < t_.num_attention_heads; ++h) {
      Vector scores;
      for (auto const* key : seen) {
        scores.push_back(dot(&q[static_cast<std::size_t>(h * e)], &key->k[static_cast<std::size_t>(h / group * e)], e) /
                         std::sqrt(static_cast<double>(e)));
      }
      scores = log_softmax(scores);
      for (std::size_t s = 0; s < seen.size(); ++s) {
        for (Index i = 0; i < e; ++i) {
          attended[static_cast<std::size_t>(h * e + i)] +=
              std::exp(scores[s]) * seen[s]->v[static_cast<std::size_t>(h / group * e + i)];
        }
      }
    }
    auto const mid = x + weight(layer, "self_attn.o_proj") * attended;
    auto const in = normed(mid, layer + "post_attention_layernorm.weight");
    auto gate = weight(layer, "mlp.gate_proj") * in;
    auto const up = weight(layer, "mlp.up_proj") * in;
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1.0 + std::exp(-gate[i]));
    return mid + weight(layer, "mlp.down_proj") * gate;
  }
  void unique_layer(std::string const& name, std::vector<std::size_t> const& everyone) {
    std::vector<KeyValue> keys;
    for (std::size_t const i : everyone) keys.push_back(project(name, i, x_[i]));
    std::vector<KeyValue const*> seen;
    for (std::size_t const i : everyone) {
      seen.push_back(&keys[i]);
      x_[i] = layer(name, i, x_[i], seen);
    }
  }

  void recursions(std::vector<std::string> const& prefixes, std::size_t first, std::vector<std::size_t> active) {
    auto const recursions = static_cast<std::size_t>(schedule_.num_recursions());
    auto const block = static_cast<std::size_t>(schedule_.block_layers());
    auto const entry = x_;
    pass_.depths.assign(text_.size(), 0);
    if (config_.recursion.router == RouterKind::TokenChoice) choose_depths(prefixes[first]);
    std::vector<std::vector<KeyValue>> first_keys(recursions * block);  // of each token where its layer first ran
    for (std::size_t r = 0; r < recursions && !active.empty(); ++r) {
      auto y = x_;
      for (std::size_t j = 0; j < block; ++j) {
        auto const place = schedule_.first_use(static_cast<Index>(r), static_cast<Index>(j));
        auto const home = static_cast<std::size_t>(place.recursion) * block + static_cast<std::size_t>(place.layer);
        auto const& name = prefixes[first + home];
        bool const original = home == r * block + j;
        std::vector<KeyValue> fresh(text_.size());
        for (std::size_t const i : active) fresh[i] = project(name, i, y[i]);
        if (original) first_keys[home] = fresh;
        for (std::size_t const i : active)
          y[i] = layer(name, i, y[i], seen_by(i, active, fresh, first_keys[home], original));
      }
      leave(r, prefixes, first, y, entry, active);
    }
  }

  /// The keys that token i of the active ones may look at.
  [[nodiscard]] std::vector<KeyValue const*> seen_by(std::size_t i, std::vector<std::size_t> const& active,
                                                     std::vector<KeyValue> const& fresh,
                                                     std::vector<KeyValue> const& first, bool original) const {
    std::vector<KeyValue const*> seen;
    for (std::size_t s = 0; s <= i; ++s) {
      bool const here = std::binary_search(active.begin(), active.end(), s);
      switch (config_.recursion.cache) {
        case CacheKind::RecursionWise:
          if (here) seen.push_back(&fresh[s]);
          break;
        case CacheKind::Shared: seen.push_back(original ? &fresh[s] : &first[s]); break;
        case CacheKind::Hybrid: seen.push_back(here ? &fresh[s] : &first[s]); break;
      }
    }
    return seen;
  }

  [[nodiscard]] double score(std::string const& layer, char const* network, std::size_t i, std::size_t output) const {
    auto const logits = weights_.at(router_prefix(layer) + network + ".router.weight") * x_[i];
    return logits[output] / config_.recursion.temperature;
  }
  /// "model.layers.2." of "model.layers.2.block.0.".
  [[nodiscard]] static std::string router_prefix(std::string const& layer) {
    auto const end = layer.find('.', std::string("model.layers.").size());
    return layer.substr(0, end + 1);
  }

  void choose_depths(std::string const& layer) {
    auto const depths = static_cast<std::size_t>(schedule_.num_recursions());
    for (std::size_t i = 0; i < text_.size(); ++i) {
      Vector logits;
      for (std::size_t r = 0; r < depths; ++r) logits.push_back(score(layer, "mor_router", i, r));
      auto probabilities = log_softmax(logits);
      for (double& p : probabilities) p = config_.recursion.gate_scale() * std::exp(p);
      auto const best = std::max_element(probabilities.begin(), probabilities.end()) - probabilities.begin();
      for (std::size_t r = 0; r < depths; ++r) {
        if (static_cast<std::ptrdiff_t>(r) != best)
          note_margin(probabilities[static_cast<std::size_t>(best)] - probabilities[r]);
      }
      chosen_.push_back(std::clamp<Index>(best + 1, least_, most_));
      gates_.push_back(probabilities[static_cast<std::size_t>(chosen_.back() - 1)]);
    }
  }
  void note_margin(double margin) { pass_.closest_decision = std::min(pass_.closest_decision, std::abs(margin)); }

  /// Joins the block's output to the stream and keeps those active that go on.
  void leave(std::size_t r, std::vector<std::string> const& prefixes, std::size_t first, std::vector<Vector> const& y,
             std::vector<Vector> const& entry, std::vector<std::size_t>& active) {
    auto const block = static_cast<std::size_t>(schedule_.block_layers());
    auto const taken = static_cast<Index>(r) + 1;
    std::vector<std::size_t> on;
    for (std::size_t const i : active) {
      bool goes_on = taken < most_;
      if (config_.recursion.router == RouterKind::AllTokens) {
        x_[i] = y[i];
      } else if (config_.recursion.router == RouterKind::TokenChoice) {
        goes_on = taken < chosen_[i];
        x_[i] = goes_on ? y[i] : entry[i] + gates_[i] * y[i];
      } else {
        double const z = score(prefixes[first + r * block], "mor_router", i, 0);
        x_[i] = x_[i] + (config_.recursion.gate_scale() / (1.0 + std::exp(-z))) * y[i];
        if (goes_on && taken >= least_) {
          bool const aux = rules_.mode == RoutingMode::AuxRouter;
          double const next = score(prefixes[first + (r + 1) * block], aux ? "mlp_router" : "mor_router", i, 0);
          note_margin(next - rules_.knobs.threshold);
          goes_on = next >= rules_.knobs.threshold;
        }
      }
      pass_.depths[i] = static_cast<Row>(taken);
      if (goes_on) on.push_back(i);
    }
    active = on;
  }

  ModelConfig config_;
  TransformerConfig t_;
  LayerSchedule schedule_;
  std::map<std::string, std::vector<float>> weights_;
  std::vector<Token> text_;
  PlainRules rules_;
  LayerNaming naming_;
  Index least_ = 1, most_ = 1;
  std::vector<Vector> x_;
  std::vector<Index> chosen_;
  Vector gates_;
  PlainPass pass_;
};

}  // namespace

PlainPass plain_forward(Served const& served, std::vector<Token> const& text, PlainRules const& rules) {
  return Plain(served, text, rules).run();
}

}  // namespace mor::test
