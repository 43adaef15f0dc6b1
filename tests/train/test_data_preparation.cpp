// SPDX-License-Identifier: Apache-2.0
#include "mor/train/data_preparation.hpp"

#include "mor/train/token_source.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "train/file_bytes.hpp"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::Token;
using mor::io::Tokenizer;
using mor::test::fails_with;
using mor::test::TemporaryFolder;
using mor::train::prepare_data;
using mor::train::PreparationOptions;
using mor::train::PreparationProgress;
using mor::train::PreparationState;

constexpr auto go_on = [](PreparationProgress const&) { return true; };

/// `count` documents of different lengths, `bytes` on average.
std::string corpus(int count, int bytes, unsigned state = 1) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    if (i > 0) text += "\n<|endoftext|>\n";
    state = state * 1103515245U + 12345U;
    int const length = 1 + static_cast<int>((state >> 16U) % static_cast<unsigned>(2 * bytes));
    for (int j = 0; j < length; ++j) text += static_cast<char>('a' + (i + j * j) % 26);
  }
  return text;
}

/// All files of a folder but hidden ones.
std::map<std::string, std::string> files(std::filesystem::path const& folder) {
  std::map<std::string, std::string> found;
  for (auto const& entry : std::filesystem::directory_iterator(folder)) {
    found[entry.path().filename().string()] = mor::test::read_bytes(entry.path());
  }
  return found;
}

std::vector<Token> tokens(std::filesystem::path const& folder, PreparationState const& state, bool validation) {
  std::vector<std::filesystem::path> paths;
  auto const& split = validation ? state.validation : state.training;
  for (std::size_t i = 0; i < split.shards.size(); ++i) {
    paths.push_back(folder / mor::train::shard_name(validation, static_cast<Index>(i)));
  }
  auto const source = mor::train::TokenSource::from_shards(paths, 257);
  std::vector<Token> all(static_cast<std::size_t>(source.size()));
  source.copy(0, all);
  return all;
}

struct Work {
  TemporaryFolder folder;
  Tokenizer tokenizer = Tokenizer::byte_level();
  PreparationOptions options;

  explicit Work(std::string const& text) {
    mor::test::write_bytes(folder / "text.txt", text);
    options.inputs = {folder / "text.txt"};
    options.out = folder / "out";
    options.end = {256};
    options.shard_tokens = 1000;
  }
  PreparationState run() { return prepare_data(tokenizer, options, go_on); }
};

TEST_CASE("documents become tokens in their order, each with its end, over as many shards as it takes") {
  Work work("abc\n<|endoftext|>\nde\n<|endoftext|>\nf<|endoftext|>g");
  work.options.shard_tokens = 4;
  work.options.begin = {7};
  auto const state = work.run();
  CHECK(state.finished);
  std::vector<Token> expected = {7, 'a', 'b', 'c', 256, 7, 'd', 'e', 256, 7};
  for (char const c : std::string("f<|endoftext|>g")) expected.push_back(c);  // plain text, not the special token
  expected.push_back(256);
  CHECK(tokens(work.options.out, state, false) == expected);
  CHECK(state.training.documents == 3);
  CHECK(state.training.bytes == 3 + 2 + 15);
  CHECK(state.training.shards == std::vector<Index>{4, 4, 4, 4, 4, 4, 2});
  CHECK(files(work.options.out).contains("tokenizer.json"));

  work.options.special = mor::io::SpecialInput::Parse;
  work.options.out = work.folder / "parsed";
  auto const parsed = tokens(work.options.out, work.run(), false);
  CHECK(std::vector<Token>(parsed.end() - 5, parsed.end()) == std::vector<Token>{7, 'f', 256, 'g', 256});
}

TEST_CASE("a share of the documents is held out, and each document is whole in one of the two") {
  Work work(corpus(2000, 12));
  work.options.validation_fraction = 0.25;
  work.options.shard_tokens = 100000;
  auto const state = work.run();
  CHECK(state.training.documents + state.validation.documents == 2000);
  CHECK(state.validation.documents > 430);
  CHECK(state.validation.documents < 570);
  auto const count_ends = [](std::vector<Token> const& all) { return std::count(all.begin(), all.end(), 256); };
  CHECK(count_ends(tokens(work.options.out, state, false)) == state.training.documents);
  CHECK(count_ends(tokens(work.options.out, state, true)) == state.validation.documents);
  CHECK(state.training.tokens() + state.validation.tokens() ==
        state.training.bytes + state.validation.bytes + 2000);

  work.options.seed = 2;
  work.options.out = work.folder / "other";
  CHECK(tokens(work.options.out, work.run(), true) != tokens(work.folder / "out", state, true));
}

TEST_CASE("validation files are for validation alone") {
  Work work("train me");
  mor::test::write_bytes(work.folder / "held.txt", "hold me out");
  work.options.validation_inputs = {work.folder / "held.txt"};
  auto const state = work.run();
  CHECK(tokens(work.options.out, state, false).size() == 9);
  CHECK(tokens(work.options.out, state, true).size() == 12);
}

/// The files of a run that is stopped again and again, each time after the next block, until it is finished.
std::map<std::string, std::string> interrupted(Work& work, int threads) {
  work.options.threads = threads;
  for (int runs = 0; runs < 1000; ++runs) {
    Index blocks = 0;
    auto const stop = [&](PreparationProgress const&) { return ++blocks < 2; };
    auto const state = prepare_data(work.tokenizer, work.options, stop);
    if (state.finished) {
      CHECK(runs > 1);
      return files(work.options.out);
    }
    // What a process killed in the middle of a write leaves behind.
    mor::test::write_bytes(work.options.out / ".tmp-1-1", "half a shard");
  }
  return {};
}

TEST_CASE("neither threads nor interruptions change a byte of the result") {
  // Blocks are of a megabyte; validation shards fill more slowly than training shards.
  Work work(corpus(3000, 1500));
  work.options.validation_fraction = 0.1;
  work.options.shard_tokens = 300'000;
  work.run();
  auto const expected = files(work.options.out);
  REQUIRE(expected.size() > 10);
  for (int const threads : {2, 4}) {
    work.options.out = work.folder / ("threads" + std::to_string(threads));
    work.options.threads = threads;
    work.run();
    CHECK((files(work.options.out) == expected));
  }
  for (int const threads : {1, 3}) {
    work.options.out = work.folder / ("interrupted" + std::to_string(threads));
    auto const found = interrupted(work, threads);
    for (auto const& [name, bytes] : expected) {
      INFO(name);
      CHECK((found.contains(name) && found.at(name) == bytes));
    }
    CHECK(found.size() == expected.size());
  }
}

TEST_CASE("a shard that was written but not recorded is written again, and a finished preparation is left alone") {
  Work work(corpus(50, 100));
  work.run();
  auto const expected = files(work.options.out);
  work.run();
  CHECK((files(work.options.out) == expected));
  std::filesystem::remove(work.options.out / "prepare.json");
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { work.run(); }, "without a record"));
  mor::train::remove_preparation(work.options.out);
  CHECK(files(work.options.out).empty());
  work.run();
  CHECK((files(work.options.out) == expected));
}

TEST_CASE("other settings, other inputs and damaged shards are refused") {
  Work work(corpus(50, 100));
  work.run();
  auto const refused = [&](auto const& change, auto const&... parts) {
    Work other = Work(corpus(50, 100));
    other.options.out = work.options.out;
    change(other);
    return fails_with(ErrorCode::InvalidArgument, [&] { other.run(); }, "other settings", parts...);
  };
  CHECK(refused([](Work& w) { w.options.shard_tokens = 999; }, "shard_tokens"));
  CHECK(refused([](Work& w) { w.options.seed = 3; }, "seed"));
  CHECK(refused([](Work& w) { w.options.end.clear(); w.options.rules.field = "x"; }, "field, end"));
  CHECK(refused([](Work& w) { mor::test::write_bytes(w.folder / "text.txt", corpus(50, 100, 2)); }, "inputs"));
  CHECK_FALSE(refused([](Work& w) { w.options.threads = 3; }));

  mor::test::write_bytes(work.options.out / "train_000001.bin", "short");
  CHECK(fails_with(ErrorCode::MalformedFile, [&] { work.run(); }, "train_000001.bin"));
  auto record = mor::train::load_preparation(work.options.out);
  record->finished = false;
  record->training.shards.resize(1);
  record->training.next = record->validation.next = {0, 1 << 30, 9, 0};
  save_preparation(work.options.out, *record);
  CHECK(fails_with(ErrorCode::MalformedFile, [&] { work.run(); }, "prepare.json", "outside the inputs"));
  mor::test::write_bytes(work.options.out / "prepare.json", "{\"finished\": 1}");
  CHECK(fails_with(ErrorCode::MalformedFile, [&] { work.run(); }, "prepare.json", "finished"));
}

TEST_CASE("a folder that holds something else is refused and left as it is, a start without a shard is forgotten") {
  Work work(corpus(5, 20));
  std::filesystem::create_directories(work.options.out);
  mor::test::write_bytes(work.options.out / ".tmp-1-1", "of someone else");
  for (char const* name : {"tokenizer.json", "model.safetensors"}) {
    mor::test::write_bytes(work.options.out / name, "of a model");
    CHECK(fails_with(ErrorCode::InvalidArgument, [&] { work.run(); }, "something else than token shards", "got "));
    mor::train::remove_preparation(work.options.out);
    CHECK(mor::test::read_bytes(work.options.out / name) == "of a model");
    CHECK(files(work.options.out).size() == 2);
    std::filesystem::remove(work.options.out / name);
  }
  // The first file has no text: no shard, and no settings to keep to.
  mor::test::write_bytes(work.folder / "empty.txt", "\n");
  work.options.inputs = {work.folder / "empty.txt"};
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { work.run(); }, "there is no text"));
  mor::test::write_bytes(work.options.out / "train_000000.bin", "written, but not recorded");
  work.options.inputs = {work.folder / "text.txt"};
  work.options.shard_tokens = 17;
  CHECK(work.run().finished);
  CHECK(files(work.options.out).contains("tokenizer.json"));
  CHECK_FALSE(files(work.options.out).contains(".tmp-1-1"));
}

TEST_CASE("progress counts from where an earlier call came to") {
  Work work(corpus(3000, 1500));
  work.options.validation_fraction = 0.01;  // its one shard comes at the end: a second call looks for its documents
  work.options.shard_tokens = 300'000;
  Index reached = 0;
  static_cast<void>(prepare_data(work.tokenizer, work.options, [&](PreparationProgress const& progress) {
    CHECK(progress.begun_bytes == 0);
    reached = progress.bytes;
    return progress.bytes < 2'000'000;
  }));
  PreparationProgress first;
  static_cast<void>(prepare_data(work.tokenizer, work.options, [&](PreparationProgress const& progress) {
    first = progress;
    return false;
  }));
  CHECK(first.begun_bytes > reached - 1'400'000);
  CHECK(first.begun_bytes <= reached);
}

TEST_CASE("of several bad documents the first in order is reported") {
  Work work("");
  std::string lines;
  for (int i = 0; i < 30000; ++i) lines += "{\"text\": \"document " + std::to_string(i) + " of many, long enough\"}\n";
  std::string broken = lines;
  auto const at = lines.find("document 29990");
  broken[broken.rfind('{', at)] = '[';
  broken[broken.rfind('{')] = '[';
  work.options.inputs = {work.folder / "text.jsonl"};
  work.options.threads = 4;
  work.options.shard_tokens = 50'000;
  mor::test::write_bytes(work.options.inputs[0], broken);
  CHECK(fails_with(ErrorCode::MalformedFile, [&] { work.run(); },
                   "text.jsonl: line at byte " + std::to_string(lines.rfind('{', at))));
}

TEST_CASE("options that cannot work are refused before a folder is made") {
  Work work("text");
  auto const refused = [&](auto const& change, ErrorCode code, auto const&... parts) {
    Work other("text");
    change(other.options);
    bool const threw = fails_with(code, [&] { other.run(); }, parts...);
    return threw && !std::filesystem::exists(other.options.out);
  };
  auto const bad = ErrorCode::InvalidArgument;
  CHECK(refused([](PreparationOptions& o) { o.inputs.clear(); }, bad, "no texts"));
  CHECK(refused([](PreparationOptions& o) { o.shard_tokens = 0; }, bad, "shard tokens"));
  CHECK(refused([](PreparationOptions& o) { o.shard_tokens = Index{1} << 31; }, bad, "shard tokens"));
  CHECK(refused([](PreparationOptions& o) { o.validation_fraction = 1.0; }, bad, "validation fraction"));
  CHECK(refused([](PreparationOptions& o) { o.threads = 0; }, bad, "threads", "1 to 1024"));
  CHECK(refused([](PreparationOptions& o) { o.threads = 1025; }, bad, "threads", "got 1025"));
  CHECK(refused([](PreparationOptions& o) { o.inputs = {"/nowhere/at/all"}; }, ErrorCode::IoFailure, "nowhere"));
  mor::test::write_bytes(work.folder / "text.txt", " \n\n");
  CHECK(fails_with(bad, [&] { work.run(); }, "there is no text"));
}

}  // namespace
