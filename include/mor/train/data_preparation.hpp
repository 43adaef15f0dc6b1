// SPDX-License-Identifier: Apache-2.0
/// @file
/// `prepare_data`: texts into token shards, on several threads, with a result that depends neither on their number nor
/// on how often the work was interrupted.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/philox.hpp"
#include "mor/core/types.hpp"
#include "mor/io/tokenizer.hpp"
#include "mor/train/document_reader.hpp"
#include "mor/train/ordered_workers.hpp"
#include "mor/train/preparation_options.hpp"
#include "mor/train/preparation_state.hpp"
#include "mor/train/token_shard.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mor::train {

struct PreparationProgress {
  Index bytes = 0, total_bytes = 0;  ///< of the inputs
  Index begun_bytes = 0;             ///< up to where an earlier call came: `bytes` may be before, on its way there
  Index training_tokens = 0, validation_tokens = 0;
};

namespace detail {

/// The pipeline: documents are read in order, encoded in blocks by the workers, and written in order.
class Preparation {
 public:
  Preparation(io::Tokenizer const& tokenizer, PreparationOptions const& options, PreparationState& state)
      : tokenizer_(tokenizer), options_(options), state_(state), done_(state), begun_with_(state) {
    for (auto const& path : options.inputs) add_input(path);
    for (auto const& path : options.validation_inputs) add_input(path);
    auto const& a = state.training.next;
    auto const& b = state.validation.next;
    cursor_ = a.document <= b.document ? a : b;
    if (cursor_.input >= static_cast<Index>(readers_.size()) || cursor_.byte > reader(cursor_.input).size()) {
      fail(ErrorCode::MalformedFile, "a place outside the inputs", (options.out / kPreparationFile).string(),
           "at most " + text_of(readers_.size()) + " inputs",
           "input " + text_of(cursor_.input) + ", byte " + text_of(cursor_.byte));
    }
    skip_inputs();
  }

  /// @return false when `on_progress` did
  bool run(std::function<bool(PreparationProgress const&)> const& on_progress) {
    OrderedWorkers<Block> workers(options_.threads, [this](Block& block) { encode(block); });
    auto const window = 4 * static_cast<std::size_t>(options_.threads);
    for (;;) {
      while (workers.pending() < window) {
        Block block = read_block();
        if (block.pieces.empty()) break;
        workers.submit(std::move(block));
      }
      if (workers.pending() == 0) break;
      write(workers.take());
      if (!on_progress(progress())) return false;
    }
    finish();
    return true;
  }

 private:
  static constexpr std::size_t block_bytes = 1U << 20U;

  /// A document on its way.
  struct Piece {
    RawDocument raw;
    PreparationPlace place;
    bool validation = false;
    Index text_bytes = 0;
    std::size_t tokens_end = 0;  ///< in the block's tokens
  };
  struct Block {
    std::vector<Piece> pieces;
    std::vector<Token> tokens;
    Index bytes_read = 0;  ///< of all inputs, when this block had been read
  };

  void add_input(std::filesystem::path const& path) {
    readers_.push_back(std::make_unique<DocumentReader>(path, options_.rules));
    total_bytes_ += readers_.back()->size();
  }

  void skip_inputs() {
    bytes_before_ = bytes_before(cursor_.input);
    reader(cursor_.input).seek(cursor_.byte);
    for (PreparedSplit const* const split : {&begun_with_.training, &begun_with_.validation}) {
      begun_bytes_ = std::max(begun_bytes_, bytes_before(split->next.input) + split->next.byte);
    }
  }

  /// Of the inputs before this one.
  [[nodiscard]] Index bytes_before(Index input) const {
    Index bytes = 0;
    for (Index i = 0; i < std::min(input, static_cast<Index>(readers_.size())); ++i) bytes += reader(i).size();
    return bytes;
  }

  [[nodiscard]] DocumentReader& reader(Index input) const { return *readers_[static_cast<std::size_t>(input)]; }

  /// Whether a document is for validation: by its number alone, so that nothing before it matters.
  [[nodiscard]] bool drawn_for_validation(PreparationPlace const& place) const {
    if (place.input >= static_cast<Index>(options_.inputs.size())) return true;
    if (options_.validation_fraction == 0.0) return false;
    Philox const random{stream_key(options_.seed, 0x73706c6974)};
    return uniform01(random.block(static_cast<std::uint64_t>(place.document))[0]) < options_.validation_fraction;
  }

  /// The next documents, about a megabyte of them; none at the end. What is in shards already is passed over.
  [[nodiscard]] Block read_block() {
    Block block;
    std::size_t bytes = 0;
    while (bytes < block_bytes && cursor_.input < static_cast<Index>(readers_.size())) {
      auto const raw = reader(cursor_.input).next();
      if (!raw) {
        bytes_before_ += reader(cursor_.input).size();
        ++cursor_.input;
        continue;
      }
      Piece piece;
      piece.raw = *raw;
      piece.place = {cursor_.input, raw->begin, cursor_.document++, 0};
      piece.validation = drawn_for_validation(piece.place);
      auto const& next = begun_with_.split(piece.validation).next;
      if (piece.place.document < next.document) continue;
      if (piece.place.document == next.document) piece.place.skip = next.skip;
      bytes += raw->bytes.size();
      block.pieces.push_back(piece);
    }
    bool const open = cursor_.input < static_cast<Index>(readers_.size());
    block.bytes_read = bytes_before_ + (open ? reader(cursor_.input).position() : 0);
    return block;
  }

  void encode(Block& block) const {
    for (Piece& piece : block.pieces) {
      std::string const text = reader(piece.place.input).content(piece.raw);
      piece.text_bytes = static_cast<Index>(text.size());
      if (!text.empty()) {
        auto const ids = tokenizer_.encode(text, options_.special);
        for (std::span<Token const> const part : {std::span(options_.begin), std::span(ids), std::span(options_.end)}) {
          block.tokens.insert(block.tokens.end(), part.begin(), part.end());
        }
      }
      piece.tokens_end = block.tokens.size();
    }
  }

  void write(Block const& block) {
    std::span<Token const> const tokens(block.tokens);
    std::size_t begin = 0;
    for (Piece const& piece : block.pieces) {
      append(piece, tokens.subspan(begin, piece.tokens_end - begin));
      begin = piece.tokens_end;
    }
    bytes_read_ = block.bytes_read;
  }

  /// Adds a document to its split. `done_` counts it; what is saved is the place where the last shard ended.
  void append(Piece const& piece, std::span<Token const> tokens) {
    PreparedSplit& now = done_.split(piece.validation);
    auto& buffer = buffers_[piece.validation ? 1 : 0];
    auto const whole = static_cast<Index>(tokens.size());
    if (whole == 0) return;
    Index used = std::min(piece.place.skip, whole);
    while (used < whole) {
      Index const room = options_.shard_tokens - static_cast<Index>(buffer.size());
      Index const count = std::min(room, whole - used);
      auto const part = tokens.subspan(static_cast<std::size_t>(used), static_cast<std::size_t>(count));
      buffer.insert(buffer.end(), part.begin(), part.end());
      used += count;
      if (static_cast<Index>(buffer.size()) < options_.shard_tokens) break;
      now.next = piece.place;
      now.next.skip = used;
      write_shard(piece.validation);
      // Nothing of the other split waits in memory: it need not look at what came before either.
      auto& other = done_.split(!piece.validation);
      if (buffers_[piece.validation ? 0 : 1].empty()) {
        other.next = piece.place;
        other.next.skip = 0;
      }
      save();
    }
    ++now.documents;
    now.bytes += piece.text_bytes;
  }

  void write_shard(bool validation) {
    auto& buffer = buffers_[validation ? 1 : 0];
    auto& split = done_.split(validation);
    auto const path = options_.out / shard_name(validation, static_cast<Index>(split.shards.size()));
    write_token_shard(path, buffer, tokenizer_.vocab_size());
    split.shards.push_back(static_cast<Index>(buffer.size()));
    buffer.clear();
  }

  /// Saves `done_` with the counts of documents before the places saved, which may lie behind.
  void save() {
    for (bool const validation : {false, true}) {
      PreparedSplit const& now = done_.split(validation);
      PreparedSplit& saved = state_.split(validation);
      bool const moved = saved.next != now.next;
      saved.shards = now.shards;
      if (!moved) continue;
      saved.next = now.next;
      saved.documents = now.documents;
      saved.bytes = now.bytes;
    }
    save_preparation(options_.out, state_);
  }

  void finish() {
    for (bool const validation : {false, true}) {
      if (!buffers_[validation ? 1 : 0].empty()) write_shard(validation);
    }
    done_.finished = true;
    state_ = done_;
    for (PreparedSplit* const split : {&state_.training, &state_.validation}) split->next = {};
    if (state_.training.shards.empty() && state_.validation.shards.empty()) {
      fail(ErrorCode::InvalidArgument, "there is no text in the inputs", options_.inputs.front().string());
    }
    save_preparation(options_.out, state_);
  }

  [[nodiscard]] PreparationProgress progress() const {
    auto const tokens = [&](PreparedSplit const& split, std::size_t buffer) {
      return split.tokens() + static_cast<Index>(buffers_[buffer].size());
    };
    return {bytes_read_, total_bytes_, begun_bytes_, tokens(done_.training, 0), tokens(done_.validation, 1)};
  }

  io::Tokenizer const& tokenizer_;
  PreparationOptions const& options_;
  PreparationState& state_;  ///< as saved
  PreparationState done_;    ///< with what waits in memory
  PreparationState begun_with_;
  std::vector<std::unique_ptr<DocumentReader>> readers_;
  PreparationPlace cursor_;  ///< the next document to read; `byte` is the reader's business
  Index bytes_before_ = 0, bytes_read_ = 0, begun_bytes_ = 0, total_bytes_ = 0;
  std::array<std::vector<Token>, 2> buffers_;  ///< training, validation
};

/// Shards must be as the state says: someone may have deleted or replaced one.
inline void check_shards(std::filesystem::path const& folder, PreparedSplit const& split, bool validation) {
  for (std::size_t i = 0; i < split.shards.size(); ++i) {
    TokenShard const shard(folder / shard_name(validation, static_cast<Index>(i)));
    if (shard.size() == split.shards[i]) continue;
    fail(ErrorCode::MalformedFile, std::string("not the shard that ") + kPreparationFile + " records",
         shard.path().string(), text_of(split.shards[i]) + " tokens", text_of(shard.size()));
  }
}

inline constexpr char kTokenizerFile[] = "tokenizer.json";

/// What is in a folder, from a preparation's point of view.
struct PreparationFolder {
  std::vector<std::filesystem::path> made;  ///< shards and the state
  std::vector<std::filesystem::path> left;  ///< by a writer that was killed
  std::vector<std::filesystem::path> others;
};

[[nodiscard]] inline PreparationFolder look_into(std::filesystem::path const& folder) {
  PreparationFolder found;
  if (!std::filesystem::exists(folder)) return found;
  for (auto const& entry : std::filesystem::directory_iterator(folder)) {
    std::string const name = entry.path().filename().string();
    bool const shard = entry.path().extension() == ".bin" && (name.starts_with("train_") || name.starts_with("val_"));
    bool const made = shard || name == kPreparationFile;
    (name.starts_with(".tmp-") ? found.left : made ? found.made : found.others).push_back(entry.path());
  }
  return found;
}

/// Before the first file is written: a folder that something else lives in, a model's for one, keeps its tokenizer.
inline void demand_own_folder(std::filesystem::path const& folder) {
  auto const found = look_into(folder);
  if (!found.made.empty()) {
    fail(ErrorCode::InvalidArgument, "there are shards without a record of their making", folder.string(),
         "a new or empty folder", found.made.front().filename().string());
  }
  if (!found.others.empty()) {
    fail(ErrorCode::InvalidArgument, "the folder holds something else than token shards", folder.string(),
         "a new or empty folder", found.others.front().filename().string());
  }
}

}  // namespace detail

/// Deletes what a preparation made in a folder: shards, the state, and with them the tokenizer; other files stay. A
/// missing folder is no error.
inline void remove_preparation(std::filesystem::path const& folder) {
  auto const found = detail::look_into(folder);
  for (auto const& path : found.made) std::filesystem::remove(path);
  if (!found.made.empty()) std::filesystem::remove(folder / detail::kTokenizerFile);
}

/// Turns texts into shards `train_*.bin` and `val_*.bin` of llm.c's format in `options.out`, beside them
/// `tokenizer.json` and `prepare.json`. Every document becomes `begin`, its tokens, `end`; documents keep their order
/// and run on from one shard into the next. A call that finds an unfinished preparation of the same settings and inputs
/// goes on after its last shard; the files in the end are the same bytes, whatever was interrupted and how many threads
/// worked. A finished one is left as it is.
/// @param on_progress  called for about every megabyte of text; false stops after it
/// @return how far it is: `finished` unless `on_progress` stopped it
/// @throws mor::error InvalidArgument also when the folder holds other files or other shards; MalformedFile naming file
///         and byte for a bad line of JSON or a damaged shard; IoFailure
[[nodiscard]] inline PreparationState prepare_data(
    io::Tokenizer const& tokenizer, PreparationOptions const& options,
    std::function<bool(PreparationProgress const&)> const& on_progress) {
  detail::check_preparation(options);
  auto const settings = detail::preparation_settings(tokenizer, options);
  if (options.overwrite) remove_preparation(options.out);
  std::filesystem::create_directories(options.out);
  auto found = load_preparation(options.out);
  if (!found) detail::demand_own_folder(options.out);
  // A call that failed before its first shard, at a bad line say, binds no one to its settings.
  if (!found || !found->has_shards()) {
    remove_preparation(options.out);
    found.emplace();
    found->settings = settings;
  }
  auto const difference = settings_difference(found->settings, settings);
  if (!difference.empty()) {
    fail(ErrorCode::InvalidArgument, "the shards in this folder were made with other settings: " + difference,
         options.out.string(), "the same settings, or another folder");
  }
  for (auto const& path : detail::look_into(options.out).left) std::filesystem::remove(path);
  if (!found->has_shards()) {
    save_preparation(options.out, *found);
    tokenizer.save(options.out / detail::kTokenizerFile);
  }
  found->settings = settings;  // the same, in their own order
  detail::check_shards(options.out, found->training, false);
  detail::check_shards(options.out, found->validation, true);
  if (!found->finished) detail::Preparation(tokenizer, options, *found).run(on_progress);
  return *found;
}

}  // namespace mor::train
