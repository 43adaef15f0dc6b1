// SPDX-License-Identifier: Apache-2.0
#include "common/training_data.hpp"

#include "common/model_folder.hpp"
#include "mor/core/error.hpp"
#include "mor/io/bpe_trainer.hpp"
#include "mor/io/file.hpp"
#include "mor/train/preparation_state.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

namespace examples {

namespace {

namespace fs = std::filesystem;
using mor::Index;

bool is_shard(fs::path const& path) {
  auto const file = mor::io::open_file(path, O_RDONLY);
  static_cast<void>(mor::io::regular_file_size(file, path));
  std::int32_t magic = 0;
  std::vector<std::byte> start(sizeof(magic));
  if (mor::io::read_some(file, path, start) < start.size()) return false;
  std::memcpy(&magic, start.data(), sizeof(magic));
  return magic == mor::train::kUint16Shard.magic || magic == mor::train::kUint32Shard.magic;
}

/// Refuses a folder of which a shard went missing since it was made.
void demand_shards(fs::path const& folder, mor::train::PreparationState const& made) {
  for (bool const validation : {false, true}) {
    auto const count = static_cast<Index>((validation ? made.validation : made.training).shards.size());
    for (Index number = 0; number < count; ++number) {
      auto const path = folder / mor::train::shard_name(validation, number);
      if (fs::exists(path)) continue;
      mor::fail(mor::ErrorCode::IoFailure, "a shard of this folder is missing", path.string(),
                mor::text_of(count) + " of its kind, by " + mor::train::kPreparationFile);
    }
  }
}

/// The files that the command line names; a folder stands for its shards, by name.
std::vector<fs::path> data_files(std::vector<std::string> const& paths) {
  std::vector<fs::path> files;
  for (auto const& name : paths) {
    if (!fs::is_directory(name)) {
      files.emplace_back(name);
      continue;
    }
    std::vector<fs::path> shards;
    for (auto const& entry : fs::directory_iterator(name)) {
      if (entry.path().extension() == ".bin") shards.push_back(entry.path());
    }
    auto const made = mor::train::load_preparation(name);
    if (made && !made->finished) {
      mor::fail(mor::ErrorCode::InvalidArgument, "the shards in this folder are not finished", name,
                "the same prepare command to go on, or the names of the shards to use", "a prepare that was stopped");
    }
    if (made) demand_shards(name, *made);
    if (shards.empty()) mor::fail(mor::ErrorCode::InvalidArgument, "the folder has no shards", name, "files *.bin");
    std::sort(shards.begin(), shards.end());
    files.insert(files.end(), shards.begin(), shards.end());
  }
  return files;
}

mor::io::Tokenizer make_tokenizer(TokenizerChoice const& choice, std::string const& text, bool& trained) {
  if (choice.existing) return mor::io::Tokenizer::load(*choice.existing);
  if (choice.name == "byte") return mor::io::Tokenizer::byte_level();
  if (choice.name != "bpe") return mor::io::Tokenizer::load(choice.name);
  trained = true;
  return mor::io::train_bpe(text, choice.vocab_size);
}

TrainingData read_text(std::vector<fs::path> const& files, TokenizerChoice const& choice) {
  std::string text;
  for (auto const& path : files) {
    std::string const part = mor::io::read_file(path);
    if (part.empty()) {
      mor::fail(mor::ErrorCode::InvalidArgument, "the file is empty", path.string(), "text or token shards");
    }
    if (!text.empty()) text += mor::io::end_of_text;
    text += part;
  }
  bool trained = false;
  auto tokenizer = make_tokenizer(choice, text, trained);
  auto const vocab_size = tokenizer.vocab_size();
  auto tokens = mor::train::TokenSource::from_tokens(tokenizer.encode(text), vocab_size, files.front().string());
  return {std::move(tokens), std::nullopt, std::move(tokenizer), vocab_size, static_cast<Index>(text.size()), trained};
}

bool is_validation(fs::path const& shard) {
  auto const name = shard.filename().string();
  return name.starts_with("val_") || name.find("_val_") != std::string::npos;
}

TrainingData read_shards(std::vector<fs::path> files, TokenizerChoice const& choice) {
  std::optional<mor::io::Tokenizer> tokenizer;
  bool const named = choice.name != "byte" && choice.name != "bpe";
  if (choice.given && !named) {
    mor::fail(mor::ErrorCode::InvalidArgument, "token shards were made by a tokenizer already", "--tokenizer",
              "its file, or no such option", choice.name);
  }
  auto const beside = files.front().parent_path() / tokenizer_file;
  if (choice.existing) {
    tokenizer = mor::io::Tokenizer::load(*choice.existing);
  } else if (named) {
    tokenizer = mor::io::Tokenizer::load(choice.name);
  } else if (fs::exists(beside)) {
    tokenizer = mor::io::Tokenizer::load(beside);
  }
  Index const vocab_size = tokenizer ? tokenizer->vocab_size() : choice.vocab_size;
  auto const held_out =
      std::stable_partition(files.begin(), files.end(), [](fs::path const& shard) { return !is_validation(shard); });
  using mor::train::TokenSource;
  if (held_out == files.begin() || held_out == files.end()) {
    return {TokenSource::from_shards(files, vocab_size), std::nullopt, std::move(tokenizer), vocab_size, 0, false};
  }
  return {TokenSource::from_shards(std::span(files.begin(), held_out), vocab_size),
          TokenSource::from_shards(std::span(held_out, files.end()), vocab_size), std::move(tokenizer), vocab_size, 0,
          false};
}

}  // namespace

TrainingData load_training_data(std::vector<std::string> const& paths, TokenizerChoice const& choice) {
  auto const files = data_files(paths);
  auto const shards = std::count_if(files.begin(), files.end(), is_shard);
  if (shards == 0) return read_text(files, choice);
  if (shards == static_cast<std::ptrdiff_t>(files.size())) return read_shards(files, choice);
  auto const text = std::find_if_not(files.begin(), files.end(), is_shard);
  mor::fail(mor::ErrorCode::InvalidArgument, "texts and token shards cannot be mixed", "--data", "all of one kind",
            text->string() + " beside shards");
}

mor::train::TokenSplit split_data(TrainingData const& data, double fraction) {
  if (data.validation) return {data.tokens, *data.validation};
  return mor::train::split_tokens(data.tokens, fraction);
}

Index target_bytes(mor::io::Tokenizer const& tokenizer, std::span<mor::Token const> targets) {
  Index bytes = 0;
  for (auto const target : targets) {
    if (target >= 0 && target < tokenizer.vocab_size())
      bytes += static_cast<Index>(tokenizer.token_bytes(target).size());
  }
  return bytes;
}

}  // namespace examples
