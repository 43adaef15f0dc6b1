// SPDX-License-Identifier: Apache-2.0
#include "common/model_folder.hpp"

#include "mor/core/config_check.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/config_json.hpp"
#include "mor/io/safetensors.hpp"
#include "mor/model/tensor_names.hpp"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace examples {

namespace {

constexpr char head_name[] = "lm_head.weight";

std::vector<Index> shape_of(mor::ParameterInfo const& info) {
  return info.is_vector ? std::vector<Index>{info.cols} : std::vector<Index>{info.rows, info.cols};
}

std::string place(std::filesystem::path const& path, std::string const& name) {
  return path.string() + ": tensor " + mor::printable(name, 200);
}

/// Checks that the copies that the file has are all of them or one alone, and equal.
void check_copies(mor::io::SafetensorsFile const& file, std::filesystem::path const& path, std::string const& name,
                  std::vector<std::string> const& aliases) {
  if (!file.contains(name)) mor::fail(mor::ErrorCode::ShapeMismatch, "the tensor is missing", place(path, name));
  std::vector<std::string> there;
  std::string absent;
  for (auto const& alias : aliases) {
    if (file.contains(alias)) {
      there.push_back(alias);
    } else if (alias != head_name && absent.empty()) {
      absent = alias;
    }
  }
  bool const has_layer_copies = std::any_of(there.begin(), there.end(), [](auto const& n) { return n != head_name; });
  if (has_layer_copies && !absent.empty()) {
    mor::fail(mor::ErrorCode::ShapeMismatch, "some copies of a shared tensor are there and some are not",
              place(path, name), "all of its copies, or none beside it", "no " + absent);
  }
  auto const bytes = file.bytes(name);
  for (auto const& alias : there) {
    auto const other = file.bytes(alias);
    bool const same = file.info(alias).dtype == file.info(name).dtype &&
                      file.info(alias).shape == file.info(name).shape &&
                      std::equal(bytes.begin(), bytes.end(), other.begin(), other.end());
    if (!same) {
      mor::fail(mor::ErrorCode::ShapeMismatch, "copies of one shared tensor differ", place(path, alias),
                "the same bits as " + name, "others");
    }
  }
}

void refuse_unknown(mor::io::SafetensorsFile const& file, std::filesystem::path const& path, AnyModel const& model,
                    std::vector<std::vector<std::string>> const& aliases) {
  std::unordered_set<std::string> known;
  for (Index i = 0; i < model.layout().count(); ++i) {
    known.insert(model.layout()[i].name);
    auto const& others = aliases[static_cast<std::size_t>(i)];
    known.insert(others.begin(), others.end());
  }
  for (auto const& entry : file.entries()) {
    if (known.count(entry.name) != 0) continue;
    mor::fail(mor::ErrorCode::ShapeMismatch, "the model of config.json has no such tensor", place(path, entry.name),
              mor::text_of(known.size()) + " names such as " + model.layout()[1].name, entry.name);
  }
}

}  // namespace

std::vector<std::vector<std::string>> official_aliases(AnyModel const& model) {
  auto const& layout = model.layout();
  std::vector<std::vector<std::string>> aliases(static_cast<std::size_t>(layout.count()));
  auto const prefixes = mor::layer_prefixes(model.naming(), model.schedule());
  auto const sets = model.schedule().unrolled();
  for (std::size_t first = 0; first < sets.size(); ++first) {
    if (std::find(sets.begin(), sets.begin() + static_cast<std::ptrdiff_t>(first), sets[first]) !=
        sets.begin() + static_cast<std::ptrdiff_t>(first)) {
      continue;  // not the first use
    }
    auto const& own = prefixes[first];
    for (Index i = 0; i < layout.count(); ++i) {
      auto const& name = layout[i].name;
      // Routers live beside the layers and are never shared: "model.layers.1.mor_router." is no prefix of a layer's
      // tensors, but an unrolled layer's prefix "model.layers.1." is one of theirs.
      bool const layers_own =
          name.starts_with(own) &&
          (name.starts_with(own + "self_attn.") || name.starts_with(own + "mlp.") ||
           name.starts_with(own + "input_layernorm.") || name.starts_with(own + "post_attention_layernorm."));
      if (!layers_own) continue;
      for (std::size_t later = first + 1; later < sets.size(); ++later) {
        if (sets[later] == sets[first]) {
          aliases[static_cast<std::size_t>(i)].push_back(prefixes[later] + name.substr(own.size()));
        }
      }
    }
  }
  if (model.config().transformer.tie_word_embeddings) aliases.front().push_back(head_name);
  return aliases;
}

void save_weights(std::filesystem::path const& path, AnyModel const& model, bool official_names,
                  mor::io::WriteMode mode) {
  auto const& layout = model.layout();
  auto const aliases = official_aliases(model);
  auto const weights = model.weights();
  std::vector<mor::io::TensorToWrite> tensors;
  for (Index i = 0; i < layout.count(); ++i) {
    auto const& info = layout[i];
    auto const bytes = std::as_bytes(std::span<float const>(weights).subspan(static_cast<std::size_t>(info.offset),
                                                                             static_cast<std::size_t>(info.size())));
    tensors.push_back({info.name, mor::DType::F32, shape_of(info), bytes});
    if (!official_names) continue;
    for (auto const& alias : aliases[static_cast<std::size_t>(i)]) {
      tensors.push_back({alias, mor::DType::F32, shape_of(info), bytes});
    }
  }
  mor::io::write_safetensors(path, tensors, {{"format", "pt"}}, mode);
}

void load_weights(std::filesystem::path const& path, AnyModel& model) {
  auto const file = mor::io::SafetensorsFile::open(path);
  auto const& layout = model.layout();
  auto const aliases = official_aliases(model);
  refuse_unknown(file, path, model, aliases);
  std::vector<float> values;
  for (Index i = 0; i < layout.count(); ++i) {
    auto const& info = layout[i];
    check_copies(file, path, info.name, aliases[static_cast<std::size_t>(i)]);
    file.demand_shape(info.name, shape_of(info));
    values.resize(static_cast<std::size_t>(info.size()));
    file.read_float32(info.name, values);
    model.set_weights(info.offset, values);
  }
  model.publish();
}

mor::io::Tokenizer load_tokenizer(std::filesystem::path const& folder, mor::ModelConfig const& config) {
  auto const path = folder / tokenizer_file;
  auto tokenizer = mor::io::Tokenizer::load(path);
  if (tokenizer.vocab_size() > config.transformer.vocab_size) {
    mor::fail(mor::ErrorCode::ShapeMismatch, "the tokenizer has more tokens than the model", path.string(),
              "at most " + mor::text_of(config.transformer.vocab_size), mor::text_of(tokenizer.vocab_size()));
  }
  return tokenizer;
}

std::string token_text(mor::io::Tokenizer const& tokenizer, Token token) {
  if (token >= tokenizer.vocab_size()) return std::string(mor::utf8_replacement);
  return std::string(tokenizer.token_bytes(token));
}

OpenModel open_model(std::optional<std::string> const& folder, ModelFlags const& flags, DeviceChoice const& device,
                     bool with_tokenizer) {
  if (folder.has_value() == flags.preset.has_value()) {
    mor::fail(mor::ErrorCode::InvalidArgument, "give one model", "--model, --preset", "one of them",
              folder ? "both" : "none");
  }
  auto tokenizer = mor::io::Tokenizer::byte_level();
  if (!folder) {
    auto config = apply_model_flags(find_preset(*flags.preset).model, flags);
    config.transformer.vocab_size = tokenizer.vocab_size();
    config.transformer.bos_token_id = config.transformer.eos_token_id = tokenizer.end_of_text_id().value_or(0);
    mor::check(config, "command line");
    auto model = make_model(config, device, Purpose::Inference);
    model->initialize(0);
    return {std::move(model), std::move(tokenizer)};
  }
  std::filesystem::path const path(*folder);
  auto const config = apply_model_flags(mor::io::load_config(path / config_file), flags);
  mor::check(config, "command line and " + (path / config_file).string());
  auto model = make_model(config, device, Purpose::Inference);
  load_weights(path / weights_file, *model);
  if (with_tokenizer) tokenizer = load_tokenizer(path, config);
  return {std::move(model), std::move(tokenizer)};
}

}  // namespace examples
