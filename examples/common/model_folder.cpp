// SPDX-License-Identifier: Apache-2.0
#include "common/model_folder.hpp"

#include "mor/core/config_check.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/safetensors_set.hpp"
#include "mor/model/model_tensors.hpp"

#include <utility>

namespace examples {

namespace {

mor::ModelTensors tensors_of(AnyModel const& model) {
  return {model.config(), model.schedule(), model.naming(), model.layout()};
}

}  // namespace

void save_weights(std::filesystem::path const& path, AnyModel const& model, bool official_names,
                  mor::io::WriteMode mode) {
  auto const& layout = model.layout();
  auto const weights = model.weights();
  std::vector<mor::io::TensorToWrite> tensors;
  for (auto const& [name, source] : mor::names_to_write(tensors_of(model), official_names)) {
    auto const& info = layout.find(source);
    auto const values = std::span<float const>(weights).subspan(static_cast<std::size_t>(info.offset),
                                                                static_cast<std::size_t>(info.size()));
    tensors.push_back({name, mor::DType::F32, mor::file_shape(info), std::as_bytes(values)});
  }
  mor::io::write_safetensors(path, tensors, {{"format", "pt"}}, mode);
}

void load_weights(mor::TensorSource const& source, AnyModel& model) {
  auto const aliases = mor::tensor_aliases(tensors_of(model));
  mor::StoredModel const stored(source, model.layout(), aliases);
  stored.load([&](Index first, std::span<float const> values) { model.set_weights(first, values); });
  model.publish();
}

void load_weights(std::filesystem::path const& path, AnyModel& model) {
  load_weights(mor::io::SafetensorsSet(path), model);
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
  auto const files = open_model_files(path, flags.head_dim);
  auto const config = apply_model_flags(files.config, flags);
  mor::check(config, "command line and " + (files.folder.value_or(path) / config_file).string());
  auto model = make_model(config, device, Purpose::Inference);
  load_weights(*files.tensors, *model);
  if (with_tokenizer) tokenizer = load_tokenizer(files.folder.value_or(path), config);
  return {std::move(model), std::move(tokenizer)};
}

}  // namespace examples
