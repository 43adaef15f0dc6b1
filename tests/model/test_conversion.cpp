// SPDX-License-Identifier: Apache-2.0
#include "mor/model/conversion.hpp"
#include "mor/model/declare_tensors.hpp"
#include "mor/model/detect_structure.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/policy/token_choice.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "zoo/zoo.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

using namespace mor;
using mor::test::fails_with;

namespace {

/// Tensors in memory; values are what a test puts there, or zeros.
class MemorySource final : public TensorSource {
 public:
  std::map<std::string, TensorFacts, std::less<>> tensors;
  std::map<std::string, std::vector<float>> values;

  std::vector<std::string> names() const override {
    std::vector<std::string> all;
    for (auto const& [name, facts] : tensors) all.push_back(name);
    return all;
  }
  std::optional<TensorFacts> find(std::string_view name) const override {
    auto const place = tensors.find(name);
    return place == tensors.end() ? std::nullopt : std::optional(place->second);
  }
  std::string label() const override { return "memory"; }
  void read(std::string_view name, Index first, std::span<float> into) const override {
    auto const place = values.find(std::string(name));
    for (std::size_t i = 0; i < into.size(); ++i) {
      into[i] = place == values.end() ? 0.0F : place->second[static_cast<std::size_t>(first) + i];
    }
  }
  void add(std::string const& name, std::vector<Index> shape = {1}) { tensors[name] = {DType::F32, std::move(shape)}; }
  /// One tensor of a layer is enough to show it.
  void add_layer(std::string const& prefix) { add(prefix + "self_attn.q_proj.weight"); }
};

ModelConfig middle(Index layers, Index recursions) {
  ModelConfig config;
  config.num_hidden_layers = layers;
  config.recursion.sharing = SharingKind::MiddleCycle;
  config.recursion.num_recursions = recursions;
  config.recursion.num_prelude_layers = config.recursion.num_coda_layers = 1;
  return config;
}

ModelTensors tensors_of(ModelConfig const& config) {
  switch (config.recursion.router) {
    case RouterKind::ExpertChoice:
      return declare_tensors(config, named_schedule(config), ExpertChoice<>(config.recursion));
    case RouterKind::TokenChoice: return declare_tensors(config, named_schedule(config), TokenChoice<>(config.recursion));
    default: return declare_tensors(config, named_schedule(config), AllTokens(config.recursion));
  }
}

/// The source layer of each inner set.
std::vector<Index> inner_sources(Index source_layers, ModelConfig const& to, BlockInit init) {
  std::vector<Index> layers;
  auto const sources = layer_sources(source_layers, MiddleCycle::schedule(to), init, 1);
  for (std::size_t set = 1; set + 1 < sources.size(); ++set) {
    REQUIRE(sources[set].size() == 1);
    layers.push_back(sources[set][0]);
  }
  return layers;
}

/// What names and shapes of official checkpoints look like where it matters to the detector.
void add_expert_checkpoint(MemorySource& source) {
  source.add_layer("model.layers.0.");
  for (char const* recursion : {"1", "2", "3"}) {
    for (char const* layer : {"0", "1"}) {
      source.add_layer(std::string("model.layers.") + recursion + ".block." + layer + ".");
    }
    source.add(std::string("model.layers.") + recursion + ".mor_router.router.weight");
  }
  source.add_layer("model.layers.4.");
}

}  // namespace

TEST_CASE("a block takes the layers of the specification's examples") {
  ModelConfig const three = middle(32, 3);
  REQUIRE(inner_sources(32, three, BlockInit::Stepwise) == std::vector<Index>{1, 4, 7, 11, 14, 17, 20, 24, 27, 30});
  REQUIRE(inner_sources(32, three, BlockInit::Lower) == std::vector<Index>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  REQUIRE(inner_sources(32, three, BlockInit::Upper) == std::vector<Index>{21, 22, 23, 24, 25, 26, 27, 28, 29, 30});
  auto const random = inner_sources(32, three, BlockInit::Random);
  REQUIRE(std::is_sorted(random.begin(), random.end()));
  REQUIRE(std::adjacent_find(random.begin(), random.end()) == random.end());
  REQUIRE((random.front() >= 1 && random.back() <= 30));
  auto const ends = layer_sources(32, MiddleCycle::schedule(three), BlockInit::Upper, 1);
  REQUIRE(ends.front() == std::vector<Index>{0});
  REQUIRE(ends.back() == std::vector<Index>{31});
}

TEST_CASE("an average drops the layers of the specification's table where the depth does not divide") {
  struct Row {
    Index layers, recursions, kept;
    std::vector<Index> dropped;
  };
  for (Row const& row : {Row{30, 3, 29, {14}}, Row{32, 4, 30, {8, 23}}, Row{24, 3, 23, {11}}, Row{24, 4, 22, {6, 17}},
                         Row{32, 2, 32, {}}}) {
    CAPTURE(row.layers, row.recursions);
    auto const sources =
        layer_sources(row.layers, MiddleCycle::schedule(middle(row.kept, row.recursions)), BlockInit::Average, 1);
    std::vector<Index> used, dropped;
    for (auto const& layers : sources) used.insert(used.end(), layers.begin(), layers.end());
    for (Index l = 0; l < row.layers; ++l) {
      if (std::find(used.begin(), used.end(), l) == used.end()) dropped.push_back(l);
    }
    REQUIRE(dropped == row.dropped);
  }
}

TEST_CASE("a source with too few layers, or with another number of tied ones, is refused with both numbers") {
  auto const refused = [](Index layers, BlockInit init, char const* part) {
    return fails_with(
        ErrorCode::InvalidConfig, [&] { (void)layer_sources(layers, MiddleCycle::schedule(middle(8, 2)), init, 1); },
        part);
  };
  REQUIRE(refused(4, BlockInit::Lower, "expected at least 1 + 3 + 1, got 4"));
  REQUIRE(refused(2, BlockInit::Stepwise, "expected at least 1 + 1 + 1, got 2"));
  REQUIRE(refused(9, BlockInit::Tied, "expected 1 + 6 + 1, got 9"));
  REQUIRE(fails_with(
      ErrorCode::InvalidArgument, [] { (void)parse_block_init("middle", "--init"); }, "--init", "stepwise, average",
      "\"middle\""));
  for (auto const& [value, name] : block_init_names) REQUIRE(parse_block_init(name) == value);
}

TEST_CASE(
    "tensors that are declared without a model are those of the model, and official files have as many as published") {
  for (ModelConfig const& config : mor::test::all_configs()) {
    CAPTURE(mor::test::describe(config));
    auto const model = mor::test::make_zoo_model(config);
    auto const declared = tensors_of(config);
    REQUIRE(declared.layout.count() == model->layout().count());
    for (Index i = 0; i < declared.layout.count(); ++i) {
      REQUIRE(declared.layout[i].name == model->layout()[i].name);
      REQUIRE(declared.layout[i].offset == model->layout()[i].offset);
      REQUIRE(declared.layout[i].is_vector == model->layout()[i].is_vector);
    }
  }
  auto const entries = [](ModelConfig config, RouterKind router) {
    config.recursion.router = router;
    return names_to_write(tensors_of(config), true).size();
  };
  REQUIRE(entries(middle(32, 3), RouterKind::ExpertChoice) == 294);
  REQUIRE(entries(middle(32, 3), RouterKind::TokenChoice) == 292);
  REQUIRE(entries(middle(32, 3), RouterKind::AllTokens) == 291);
  REQUIRE(entries(middle(32, 2), RouterKind::ExpertChoice) == 293);
  REQUIRE(entries(middle(34, 4), RouterKind::ExpertChoice) == 313);
}

TEST_CASE("a new router begins as it does in a new model of the same seed") {
  ModelConfig const config =
      mor::test::tiny_config(RouterKind::ExpertChoice, CacheKind::RecursionWise, SharingKind::MiddleCycle);
  auto const model = mor::test::make_zoo_model(config);
  model->initialize(7);
  ModelConfig plain = config;
  plain.recursion = RecursionConfig{};
  auto const from = tensors_of(plain), to = tensors_of(config);
  MemorySource source;
  for (auto const& info : from.layout.all()) source.add(info.name, file_shape(info));
  ConvertedTensors const converted(source, from, to, BlockInit::Stepwise, 7);
  for (char const* name : {"model.layers.1.mor_router.router.weight", "model.layers.3.mor_router.router.weight"}) {
    REQUIRE(converted.sources_of(name).empty());
    auto const wanted = model->read(name);
    std::vector<float> whole(wanted.size()), part(3);
    converted.read(name, 0, whole);
    for (std::size_t i = 0; i < wanted.size(); ++i) REQUIRE(whole[i] == static_cast<float>(wanted[i]));
    converted.read(name, 1, part);
    REQUIRE(part == std::vector<float>(whole.begin() + 1, whole.begin() + 4));
  }
}

TEST_CASE("official names show router, network, recursions and layers") {
  MemorySource source;
  add_expert_checkpoint(source);
  ModelConfig config = detect_recursion(source, {});
  REQUIRE(config.recursion.router == RouterKind::ExpertChoice);
  REQUIRE(config.recursion.sharing == SharingKind::MiddleCycle);
  REQUIRE(config.recursion.num_recursions == 3);
  REQUIRE(config.num_hidden_layers == 8);
  REQUIRE(config.recursion.sampling == RouterSampling::AuxLoss);
  source.add("model.layers.1.mlp_router.router.weight");
  REQUIRE(detect_recursion(source, {}).recursion.sampling == RouterSampling::AuxRouter);
  MemorySource token;
  for (char const* recursion : {"0", "1"})
    token.add_layer(std::string("model.layers.0.block_list.") + recursion + ".0.");
  token.add("model.layers.0.mor_router.router.0.weight");
  token.add("model.layers.0.router_bias");
  config = detect_recursion(token, {});
  REQUIRE(config.recursion.router == RouterKind::TokenChoice);
  REQUIRE(config.recursion.router_network == RouterNetwork::Mlp);
  REQUIRE(config.recursion.sharing == SharingKind::Cycle);
  REQUIRE(config.recursion.balancing == Balancing::LossFree);
  REQUIRE(config.num_hidden_layers == 2);
  REQUIRE(detect_recursion(MemorySource(), {}) == ModelConfig{});
}

TEST_CASE("names that make no model are refused with what is missing") {
  struct Bad {
    char const* add;
    char const* remove;
    char const* message;
  };
  for (Bad const& bad :
       {Bad{"", "model.layers.2.block.", "a recursion is missing (expected 2, got 3)"},
        Bad{"", "model.layers.2.block.1", "recursion 1 has other layers than the first"},
        Bad{"", "model.layers.1.block.0", "recursion 0 has other layers than the first"},
        Bad{"model.layers.3.block.7.mlp.up_proj.weight", "", "recursion 2 has other layers than the first"},
        Bad{"", "model.layers.4.", "layers beside the recursions at one end only"},
        Bad{"", "model.layers.0.", "the layers are not numbered without gaps (expected 0"},
        Bad{"model.layers.6.mlp.up_proj.weight", "", "the layers are not numbered without gaps (expected 5, got 6)"},
        Bad{"model.layers.2.mlp.up_proj.weight", "", "layer 2 is both a recursion and a plain layer"},
        Bad{"model.layers.1.block_list.0.0.mlp.up_proj.weight", "", "both expert-choice and token-choice layers"},
        Bad{"", "model.layers.1.mor_router", "the tensor of the router is missing"}}) {
    CAPTURE(bad.message);
    MemorySource source;
    add_expert_checkpoint(source);
    if (*bad.add != '\0') source.add(bad.add);
    std::erase_if(source.tensors,
                  [&](auto const& item) { return *bad.remove != '\0' && item.first.starts_with(bad.remove); });
    REQUIRE(fails_with(
        ErrorCode::ShapeMismatch, [&] { (void)detect_recursion(source, {}); }, "memory: ", bad.message));
  }
  MemorySource hostile;
  for (char const* name : {"model.layers.99999999999999999999.block.0.x", "model.layers.-1.block.0.x", "model.layers.",
                           "model.layers.1", "model.layers.1.block.", "model.layers.1.block.x.y",
                           "model.layers.1.block_list.2.", "model.layers.1.block_list.2.3"}) {
    hostile.add(name);
  }
  REQUIRE(detect_recursion(hostile, {}) == ModelConfig{});
}

TEST_CASE("shapes alone give the widths of a published model") {
  MemorySource source;
  add_expert_checkpoint(source);
  source.add("model.embed_tokens.weight", {49152, 960});
  source.add("model.layers.0.self_attn.q_proj.weight", {960, 960});
  source.add("model.layers.0.self_attn.k_proj.weight", {320, 960});
  source.add("model.layers.0.mlp.gate_proj.weight", {2560, 960});
  ModelConfig const config = detect_structure(source);
  auto const& t = config.transformer;
  REQUIRE(t.vocab_size == 49152);
  REQUIRE(t.hidden_size == 960);
  REQUIRE(t.intermediate_size == 2560);
  REQUIRE(t.num_attention_heads == 15);
  REQUIRE(t.num_key_value_heads == 5);
  REQUIRE(t.tie_word_embeddings);
  REQUIRE(config.num_hidden_layers == 8);
  source.add("model.layers.0.self_attn.k_proj.weight", {100, 960});
  REQUIRE(fails_with(
      ErrorCode::ShapeMismatch, [&] { (void)detect_structure(source); }, "k_proj.weight",
      "a multiple of 64 rows, got 100"));
  source.add("model.embed_tokens.weight", {7});
  REQUIRE(fails_with(
      ErrorCode::ShapeMismatch, [&] { (void)detect_structure(source); }, "embed_tokens", "two dimensions, got [7]"));
}

TEST_CASE("an official checkpoint whose recursions have attention of their own is refused as another architecture") {
  ModelConfig config = middle(4, 2);
  config.transformer.vocab_size = 8;
  config.transformer.hidden_size = config.transformer.intermediate_size = 4;
  config.transformer.num_attention_heads = config.transformer.num_key_value_heads = 1;
  config.transformer.head_dim = 4;
  for (RouterKind const router : {RouterKind::ExpertChoice, RouterKind::TokenChoice}) {
    config.recursion.router = router;
    ModelTensors const model = tensors_of(config);
    auto const aliases = tensor_aliases(model);
    MemorySource source;
    for (auto const& [name, tensor] : names_to_write(model, true)) {
      source.add(name, file_shape(model.layout.find(tensor)));
    }
    REQUIRE_NOTHROW(StoredModel(source, model.layout, aliases));
    std::string const first =
        router == RouterKind::ExpertChoice ? "model.layers.1.block.0." : "model.layers.1.block_list.0.0.";
    std::string const second =
        router == RouterKind::ExpertChoice ? "model.layers.2.block.0." : "model.layers.1.block_list.1.0.";
    auto const change = [&](std::string const& suffix) {
      auto const count = static_cast<std::size_t>(source.facts(second + suffix).elements());
      source.values[second + suffix] = std::vector<float>(count, 0.5F);
    };
    auto const refused = [&](ErrorCode code, std::string const& tensor, char const* part) {
      return fails_with(
          code, [&] { (void)StoredModel(source, model.layout, aliases); }, "memory: tensor \"" + second + tensor, part,
          "expected the same bits as " + first + tensor);
    };
    // One tensor is a damaged file, all four are a model of another kind.
    change("self_attn.k_proj.weight");
    REQUIRE(refused(ErrorCode::ShapeMismatch, "self_attn.k_proj.weight", "copies of one shared tensor differ"));
    change("self_attn.q_proj.weight");
    change("self_attn.o_proj.weight");
    REQUIRE(refused(ErrorCode::ShapeMismatch, "self_attn.q_proj.weight", "copies of one shared tensor differ"));
    change("self_attn.v_proj.weight");
    REQUIRE(refused(ErrorCode::Unsupported, "self_attn.q_proj.weight", "untied attention"));
    source.values.clear();
    change("mlp.up_proj.weight");
    REQUIRE(refused(ErrorCode::ShapeMismatch, "mlp.up_proj.weight", "copies of one shared tensor differ"));
  }
}
