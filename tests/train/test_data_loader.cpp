// SPDX-License-Identifier: Apache-2.0
#include "mor/train/data_loader.hpp"

#include "mor/train/validation_batches.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "train/allocation_count.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::Row;
using mor::Token;
using mor::test::fails_with;
using mor::train::DataLoader;
using mor::train::LoaderOptions;
using mor::train::LoaderState;
using mor::train::TokenBatch;
using mor::train::TokenSource;
using mor::train::ValidationBatches;

/// Token i is i, so that a batch shows where it comes from.
TokenSource counting_source(Index size) {
  std::vector<Token> tokens;
  for (Index i = 0; i < size; ++i) tokens.push_back(static_cast<Token>(i));
  return TokenSource::from_tokens(std::move(tokens), size + 1);
}

DataLoader make_loader(Index size, Index context, Index batch, std::uint64_t seed = 1, bool shuffle = true) {
  return DataLoader(counting_source(size), {.context = context, .batch_size = batch, .seed = seed, .shuffle = shuffle});
}

std::vector<Token> inputs_of(TokenBatch const& batch) { return {batch.inputs.begin(), batch.inputs.end()}; }

/// The first `count` rows that a loader hands out.
std::vector<Index> row_order(DataLoader loader, Index count) {
  std::vector<Index> rows;
  while (static_cast<Index>(rows.size()) < count) {
    static_cast<void>(loader.next());
    rows.insert(rows.end(), loader.latest_rows().begin(), loader.latest_rows().end());
  }
  rows.resize(static_cast<std::size_t>(count));
  return rows;
}

TEST_CASE("a row is context tokens, its targets are the tokens after them, and rows meet without a gap") {
  DataLoader loader = make_loader(25, 4, 3, 0, false);  // 6 rows of 4, 1 token more for the last target
  REQUIRE(loader.rows() == 6);
  REQUIRE(loader.tokens_per_batch() == 12);
  for (Index call = 0; call < 4; ++call) {
    TokenBatch const batch = loader.next();
    REQUIRE(batch.num_rows() == 12);
    REQUIRE(batch.num_sequences() == 3);
    for (Index i = 0; i < 12; ++i) {
      auto const at = static_cast<std::size_t>(i);
      REQUIRE(batch.inputs[at] == (call * 12 + i) % 24);
      REQUIRE(batch.targets[at] == batch.inputs[at] + 1);
      REQUIRE(batch.positions[at] == i % 4);
    }
    for (Index s = 0; s <= 3; ++s) REQUIRE(batch.sequence_offsets[static_cast<std::size_t>(s)] == s * 4);
  }
}

TEST_CASE("in stored order the batches are those of llm.c: batch k begins at token k * batch size * context") {
  DataLoader loader = make_loader(1000, 8, 5, 0, false);
  for (Token k = 0; k < 24; ++k) REQUIRE(loader.next().inputs[0] == k * 40);
}

TEST_CASE("every row comes once an epoch, whatever the batch size") {
  for (Index const rows : {1, 2, 3, 7, 64, 101}) {
    for (Index const batch : {1, 2, 3, 8, 200}) {
      for (bool const shuffle : {false, true}) {
        Index const epochs = 5;
        DataLoader loader = make_loader(rows * 3 + 1, 3, batch, 42, shuffle);
        std::vector<Index> const order = row_order(loader, rows * epochs);
        for (Index epoch = 0; epoch < epochs; ++epoch) {
          auto const begin = order.begin() + epoch * rows;
          REQUIRE(std::set<Index>(begin, begin + rows).size() == static_cast<std::size_t>(rows));
        }
      }
    }
  }
}

TEST_CASE("the order depends on seed and epoch and on nothing else") {
  std::vector<Index> const order = row_order(make_loader(1001, 10, 7, 5), 300);
  REQUIRE(order == row_order(make_loader(1001, 10, 7, 5), 300));
  REQUIRE(order == row_order(make_loader(1001, 10, 32, 5), 300));  // not on the batch size
  REQUIRE(order != row_order(make_loader(1001, 10, 7, 6), 300));
  std::vector<Index> const first(order.begin(), order.begin() + 100), second(order.begin() + 100, order.begin() + 200);
  REQUIRE(first != second);
  std::vector<Index> stored(100);
  for (std::size_t i = 0; i < 100; ++i) stored[i] = static_cast<Index>(i);
  REQUIRE(first != stored);
  REQUIRE(row_order(make_loader(1001, 10, 7, 5, false), 100) == stored);
}

TEST_CASE("the order is the same on every machine and in every version") {
  // Computed by a separate program from the definitions of Philox, of its key and of the shuffle.
  REQUIRE(row_order(make_loader(9, 1, 1, 1234), 16) ==
          std::vector<Index>{0, 6, 5, 1, 3, 7, 4, 2, 1, 7, 4, 3, 0, 2, 6, 5});
}

TEST_CASE("shuffling is fair: all 24 orders of four rows come equally often") {
  std::map<std::vector<Index>, int> seen;
  DataLoader loader = make_loader(5, 1, 4, 99);
  int const epochs = 24000;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    static_cast<void>(loader.next());
    ++seen[{loader.latest_rows().begin(), loader.latest_rows().end()}];
  }
  REQUIRE(seen.size() == 24);
  double chi_square = 0.0;
  for (auto const& [order, count] : seen) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  REQUIRE(chi_square < 49.7);  // 23 degrees of freedom, one chance in a thousand
}

TEST_CASE("a loader restored at any position continues with the same batches") {
  Index const rows = 11, batch = 3;
  DataLoader straight = make_loader(rows * 2 + 1, 2, batch, 77);
  std::vector<LoaderState> states;
  std::vector<std::vector<Token>> batches;
  for (int call = 0; call < 40; ++call) {
    states.push_back(straight.state());
    batches.push_back(inputs_of(straight.next()));
  }
  for (std::size_t cut = 0; cut < states.size(); ++cut) {
    DataLoader resumed = make_loader(rows * 2 + 1, 2, batch, /*another seed*/ 5);
    static_cast<void>(resumed.next());
    resumed.restore(states[cut]);
    REQUIRE(resumed.state() == states[cut]);
    for (std::size_t call = cut; call < batches.size(); ++call) REQUIRE(inputs_of(resumed.next()) == batches[call]);
  }
}

TEST_CASE("a state is refused by a loader of other data or options, and when it points nowhere") {
  DataLoader loader = make_loader(101, 10, 2);
  LoaderState const good = loader.state();
  auto const refused = [&](auto change, char const* part) {
    LoaderState state = good;
    change(state);
    bool const failed = fails_with(ErrorCode::InvalidArgument, [&] { loader.restore(state); }, part, "expected", "got");
    return failed && loader.state() == good;
  };
  CHECK(refused([](LoaderState& s) { s.rows = 11; }, "rows of an epoch"));
  CHECK(refused([](LoaderState& s) { s.context = 11; }, "context"));
  CHECK(refused([](LoaderState& s) { s.shuffle = false; }, "shuffle"));
  CHECK(refused([](LoaderState& s) { s.position = 10; }, "position 10"));
  CHECK(refused([](LoaderState& s) { s.position = -1; }, "position -1"));
  CHECK(refused([](LoaderState& s) { s.epoch = -1; }, "epoch -1"));
}

TEST_CASE("a loader over several shards gives the batches of one array") {
  mor::test::TemporaryFolder const folder;
  std::vector<std::filesystem::path> paths;
  for (Token first = 0; first < 300; first += 50) {
    std::vector<Token> tokens;
    for (Token i = first; i < first + 50; ++i) tokens.push_back(i);
    paths.push_back(folder / (std::to_string(first) + ".bin"));
    mor::train::write_token_shard(paths.back(), tokens, first % 100 == 0 ? 301 : 100000);
  }
  LoaderOptions const options = {.context = 7, .batch_size = 4, .seed = 3};
  DataLoader sharded(TokenSource::from_shards(paths, 301), options), whole(counting_source(300), options);
  for (int call = 0; call < 50; ++call) REQUIRE(inputs_of(sharded.next()) == inputs_of(whole.next()));
}

TEST_CASE("next allocates nothing, across epochs too") {
  long const at_first = mor::test::allocation_count();
  DataLoader loader = make_loader(1001, 10, 7);
  long const before = mor::test::allocation_count();
  REQUIRE(before > at_first);
  for (int call = 0; call < 100; ++call) static_cast<void>(loader.next());
  long const after = mor::test::allocation_count();
  REQUIRE(after == before);
}

TEST_CASE("a damaged token leaves the loader where it was") {
  mor::test::TemporaryFolder const folder;
  std::vector<Token> tokens(41, 5);
  tokens[30] = 90;
  std::vector<std::filesystem::path> const paths = {folder / "shard.bin"};
  mor::train::write_token_shard(paths[0], tokens, 91);
  DataLoader loader(TokenSource::from_shards(paths, 90), {.context = 4, .batch_size = 2, .seed = 0, .shuffle = false});
  for (int call = 0; call < 3; ++call) static_cast<void>(loader.next());
  LoaderState const before = loader.state();
  for (int attempt = 0; attempt < 2; ++attempt) {
    REQUIRE(fails_with(ErrorCode::MalformedFile, [&] { static_cast<void>(loader.next()); }, "token 30", "got 90"));
    REQUIRE(loader.state() == before);
  }
}

TEST_CASE("a text shorter than one row is refused with both counts") {
  for (Index const size : {Index{0}, Index{1}, Index{64}}) {
    REQUIRE(fails_with(ErrorCode::InvalidArgument, [&] { make_loader(size, 64, 1); }, "expected at least 65 tokens",
                       "got " + std::to_string(size) + " tokens"));
  }
  REQUIRE(make_loader(65, 64, 1).rows() == 1);
  REQUIRE(fails_with(ErrorCode::InvalidArgument, [] { make_loader(10, 0, 1); }, "context 0"));
  REQUIRE(fails_with(ErrorCode::InvalidArgument, [] { make_loader(10, 1, 0); }, "batch size 0"));
  REQUIRE(fails_with(ErrorCode::InvalidArgument, [] { make_loader(10, 1 << 20, 1 << 20); }, "2147483647"));
}

TEST_CASE("validation is always the same first rows, the last batch as short as need be") {
  ValidationBatches batches(counting_source(100), 9, 4, 10);
  REQUIRE(batches.rows() == 10);
  REQUIRE(batches.count() == 3);
  for (int repeat = 0; repeat < 2; ++repeat) {
    Token next = 0;
    for (Index index = 0; index < batches.count(); ++index) {
      TokenBatch const batch = batches.batch(index);
      REQUIRE(batch.num_sequences() == (index < 2 ? 4 : 2));
      for (std::size_t i = 0; i < batch.inputs.size(); ++i, ++next) {
        REQUIRE(batch.inputs[i] == next);
        REQUIRE(batch.targets[i] == next + 1);
        REQUIRE(batch.positions[i] == next % 9);
      }
    }
    REQUIRE(next == 90);
  }
  REQUIRE(ValidationBatches(counting_source(100), 9, 4, 1000).rows() == 11);
  REQUIRE(fails_with(ErrorCode::InvalidArgument, [] { ValidationBatches(counting_source(100), 9, 4, 0); }, "max_rows"));
  REQUIRE(fails_with(ErrorCode::InvalidArgument, [] { ValidationBatches(counting_source(9), 9, 4, 5); },
                     "at least 10 tokens"));
  REQUIRE(fails_with(ErrorCode::InvalidArgument, [&] { static_cast<void>(batches.batch(3)); }, "got 3"));
}

}  // namespace
