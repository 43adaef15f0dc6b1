// SPDX-License-Identifier: Apache-2.0
/// @file
/// Changes a model's format or architecture: `convert --from DIR|FILE --to DIR`. Reads model folders, checkpoints of
/// training runs, official Mixture-of-Recursions checkpoints and llama2.c files; writes a model folder.
#include "common/command_line.hpp"
#include "common/model_files.hpp"
#include "common/named_tensors.hpp"
#include "mor/core/config_check.hpp"
#include "mor/core/config_text.hpp"
#include "mor/io/config_json.hpp"
#include "mor/io/file.hpp"
#include "mor/io/safetensors_set.hpp"
#include "mor/io/tokenizer.hpp"
#include "mor/model/conversion.hpp"

#include <cstdint>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;
using namespace examples;
using mor::Index;

struct ConvertFlags {
  ModelFlags model;
  std::string from, to, init = "stepwise", dtype = "keep";
  std::optional<std::string> tokenizer;
  bool official_names = false, check_tensors = false;
  std::uint64_t seed = 1;
  Index shard_megabytes = 5000;
};

void add_options(CLI::App& app, ConvertFlags& flags) {
  app.add_option("--from", flags.from, "model folder, checkpoint, safetensors file or index, or llama2.c file")
      ->required();
  app.add_option("--to", flags.to, "folder to make")->required();
  app.add_option("--init", flags.init,
                 "where a block takes its layers from: stepwise | average | lower | upper | random | tied")
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "of new routers, and of --init random")->capture_default_str();
  app.add_option("--dtype", flags.dtype, "of the weights: keep | float32 | bfloat16 | float16")->capture_default_str();
  app.add_flag("--official-names", flags.official_names, "write every copy of a shared tensor");
  app.add_flag("--check-tensors", flags.check_tensors, "refuse weights that are infinite or not a number");
  app.add_option("--tokenizer", flags.tokenizer, "tokenizer file to put into the folder (default: the source's)");
  app.add_option("--shard-size", flags.shard_megabytes, "megabytes of weights in one file")->capture_default_str();
  add_model_options(app, flags.model, "none: the source's own architecture");
}

/// The source's architecture with what the command line changes. A vanilla model that is to recur and says no more
/// becomes a middle cycle of three recursions, of as many layers as it has.
mor::ModelConfig target_config(mor::ModelConfig const& source, ModelFlags flags) {
  bool const was_vanilla = source.recursion.sharing == mor::SharingKind::None;
  bool const routed = flags.router && *flags.router != "all_tokens";
  if (was_vanilla && !flags.sharing && (flags.recursions || routed)) flags.sharing = "middle_cycle";
  if (was_vanilla && flags.sharing && *flags.sharing != "none" && !flags.recursions) flags.recursions = 3;
  auto config = apply_model_flags(source, flags);
  auto const& r = config.recursion;
  bool const other_layers = r.sharing != source.recursion.sharing ||
                            r.num_recursions != source.recursion.num_recursions ||
                            r.num_prelude_layers != source.recursion.num_prelude_layers ||
                            r.num_coda_layers != source.recursion.num_coda_layers;
  if (other_layers && !flags.layers && r.num_recursions > 0) {
    Index const ends = r.num_prelude_layers + r.num_coda_layers;
    Index const block = (source.num_hidden_layers - ends) / r.num_recursions;
    config.num_hidden_layers = ends + r.num_recursions * block;
  }
  mor::check(config, "command line");
  return config;
}

/// The type of the weights to write. What is stored in a type that is not written becomes float32.
mor::DType target_type(std::string const& name, mor::TensorSource const& source) {
  if (name == "float32") return mor::DType::F32;
  if (name == "bfloat16") return mor::DType::BF16;
  if (name == "float16") return mor::DType::F16;
  if (name != "keep") {
    mor::fail(mor::ErrorCode::InvalidArgument, "unknown element type", "--dtype", "keep, float32, bfloat16 or float16",
              mor::printable(name));
  }
  auto const facts = source.find(mor::embedding_name);
  bool const written = facts && (facts->dtype == mor::DType::BF16 || facts->dtype == mor::DType::F16);
  return written ? facts->dtype : mor::DType::F32;
}

void demand_new_folder(fs::path const& folder) {
  if (!fs::exists(folder) || (fs::is_directory(folder) && fs::is_empty(folder))) return;
  mor::fail(mor::ErrorCode::InvalidArgument, "there is something in the way", folder.string(), "a new or empty folder",
            fs::is_directory(folder) ? "a folder with files" : "a file");
}

/// What lies beside the weights and goes with them unchanged.
void copy_companions(fs::path const& from, fs::path const& to) {
  for (char const* name :
       {tokenizer_file, "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"}) {
    if (fs::is_regular_file(from / name)) mor::io::write_file(to / name, mor::io::read_file(from / name));
  }
}

mor::io::Tokenizer fitting_tokenizer(std::string const& path, Index vocab_size) {
  auto tokenizer = mor::io::Tokenizer::load(path);
  if (tokenizer.vocab_size() > vocab_size) {
    mor::fail(mor::ErrorCode::ShapeMismatch, "the tokenizer has more tokens than the model", path,
              "at most " + mor::text_of(vocab_size), mor::text_of(tokenizer.vocab_size()));
  }
  return tokenizer;
}

std::string architecture(mor::ModelConfig const& config) {
  auto const& r = config.recursion;
  std::string text = mor::text_of(config.num_hidden_layers) + " layers";
  if (r.sharing == mor::SharingKind::None) return text + ", none shared";
  text += ", " + std::string(mor::to_text(r.sharing)) + " of " + mor::text_of(r.num_recursions) + " x " +
          mor::text_of(config.block_layers());
  if (r.router != mor::RouterKind::AllTokens) text += ", router " + std::string(mor::to_text(r.router));
  return text;
}

void convert(ConvertFlags const& flags) {
  if (flags.model.preset) {
    mor::fail(mor::ErrorCode::InvalidArgument, "a conversion begins with a model, not with a preset", "--preset",
              "no such option", *flags.model.preset);
  }
  if (flags.shard_megabytes < 1) {
    mor::fail(mor::ErrorCode::InvalidArgument, "out of range", "--shard-size", "at least 1",
              mor::text_of(flags.shard_megabytes));
  }
  auto const init = mor::parse_block_init(flags.init, "--init");
  auto const files = open_model_files(flags.from, flags.model.head_dim);
  mor::io::SafetensorsSetOptions options;
  options.dtype = target_type(flags.dtype, *files.tensors);
  options.shard_bytes = static_cast<std::uint64_t>(flags.shard_megabytes) * 1'000'000;
  auto const from = named_tensors(files.config);
  auto const to = named_tensors(target_config(files.config, flags.model));
  mor::ConvertedTensors const converted(*files.tensors, from, to, init, flags.seed);
  if (flags.check_tensors) {
    for (auto const& name : converted.names()) mor::demand_finite(converted, name);
  }
  std::optional<mor::io::Tokenizer> tokenizer;
  if (flags.tokenizer) tokenizer = fitting_tokenizer(*flags.tokenizer, to.config.transformer.vocab_size);
  fs::path const folder(flags.to);
  demand_new_folder(folder);

  fs::create_directories(folder);
  if (tokenizer) {
    tokenizer->save(folder / tokenizer_file);
  } else if (files.folder) {
    copy_companions(*files.folder, folder);
  }
  std::vector<mor::io::TensorCopy> copies;
  for (auto const& [name, source] : mor::names_to_write(to, flags.official_names)) copies.push_back({name, source});
  auto const written = mor::io::write_safetensors_set(folder, "model", copies, converted, options);
  // Last, so that a folder with a configuration is a whole model.
  mor::io::save_config(folder / config_file, to.config, options.dtype);
  std::cout << "read " << files.kind << " (" << architecture(from.config) << "), wrote " << folder.string() << " ("
            << architecture(to.config) << "): " << to.layout.total_size() << " parameters, " << copies.size()
            << " tensors in " << mor::to_text(options.dtype) << ", " << written.size()
            << (written.size() == 1 ? " file" : " files") << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Changes a model's format or architecture.", "convert");
  ConvertFlags flags;
  add_options(app, flags);
  return run_program(app, argc, argv, [&] { convert(flags); });
}
