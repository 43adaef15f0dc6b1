// SPDX-License-Identifier: Apache-2.0
// Pages of key storage and their users, kept prefixes, and neighbouring cells for prompts.
#include "support/catch.hpp"
#include "support/failure.hpp"

#include "mor/core/philox.hpp"
#include "mor/infer/prefix_cache.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>

using namespace mor;
using namespace mor::infer;

TEST_CASE("a page is free again when its last user lets go, whatever the order") {
  PagePool pool(3);
  Row const a = pool.take(), b = pool.take(), c = pool.take();
  CHECK(std::set<Row>{a, b, c} == std::set<Row>{0, 1, 2});
  CHECK(test::fails_with(
      ErrorCode::OutOfMemory, [&] { static_cast<void>(pool.take()); }, "no page is free"));
  pool.share(a);
  pool.keep(a);
  CHECK(pool.users(a) == 3);
  pool.release(a);
  pool.let_go(a);
  CHECK(pool.free() == 0);
  pool.release(a);
  CHECK(pool.free() == 1);
  CHECK(pool.take() == a);
  CHECK(pool.users(a) == 1);
}

TEST_CASE("pages that only keepers use are counted, as users and keepers come and go") {
  PagePool pool(4);
  Row const page = pool.take();
  pool.keep(page);
  CHECK(pool.only_kept() == 0);
  pool.release(page);
  CHECK(pool.only_kept() == 1);
  pool.keep(page);
  CHECK(pool.only_kept() == 1);
  pool.share(page);
  CHECK(pool.only_kept() == 0);
  pool.release(page);
  CHECK(pool.only_kept() == 1);
  pool.let_go(page);
  CHECK(pool.only_kept() == 1);
  pool.let_go(page);
  CHECK(pool.only_kept() == 0);
  CHECK(pool.free() == 4);
}

TEST_CASE("random users and keepers: free and kept pages are those that a recount finds") {
  constexpr std::size_t pages = 20;
  PagePool pool(pages);
  std::vector<Index> users(pages, 0), keepers(pages, 0);
  Philox const generator{1};
  for (std::uint64_t i = 0; i < 2'000; ++i) {
    auto const dice = generator.block(i);
    std::size_t const page = dice[0] % pages;
    Row const row = static_cast<Row>(page);
    if (users[page] == 0) {
      if (pool.free() > 0) ++users[static_cast<std::size_t>(pool.take())];
    } else if (dice[1] % 4 == 0) {
      pool.share(row);
      ++users[page];
    } else if (dice[1] % 4 == 1) {
      pool.keep(row);
      ++users[page];
      ++keepers[page];
    } else if (dice[1] % 4 == 2 && users[page] > keepers[page]) {
      pool.release(row);
      --users[page];
    } else if (keepers[page] > 0) {
      pool.let_go(row);
      --users[page];
      --keepers[page];
    }
    Index free = 0, only_kept = 0;
    for (std::size_t p = 0; p < pages; ++p) {
      REQUIRE(pool.users(static_cast<Row>(p)) == users[p]);
      free += users[p] == 0 ? 1 : 0;
      only_kept += users[p] > 0 && users[p] == keepers[p] ? 1 : 0;
    }
    REQUIRE(pool.free() == free);
    REQUIRE(pool.only_kept() == only_kept);
  }
}

TEST_CASE("ranges of cells never overlap, are as long as wanted where that is free, and come back whole") {
  CellRanges ranges(10, 16);
  CHECK(ranges.take(5) == std::pair<Index, Index>{10, 5});
  CHECK(ranges.take(5) == std::pair<Index, Index>{15, 5});
  CHECK(ranges.take(9) == std::pair<Index, Index>{20, 6});
  CHECK(ranges.take(1).second == 0);
  ranges.give_back(15, 5);
  CHECK(ranges.take(3) == std::pair<Index, Index>{15, 3});
  CHECK(ranges.take(3) == std::pair<Index, Index>{18, 2});
  ranges.give_back(10, 5);
  ranges.give_back(15, 3);
  ranges.give_back(18, 2);
  ranges.give_back(20, 6);
  CHECK(ranges.take(16) == std::pair<Index, Index>{10, 16});
  CellRanges none(4, 0);
  CHECK(none.take(3).second == 0);
  CHECK(none.free() == 0);

  CellRanges many(0, 64);
  std::vector<std::pair<Index, Index>> held;
  std::vector<int> owner(64, 0);
  Philox const generator{2};
  for (std::uint64_t i = 0; i < 5'000; ++i) {
    auto const dice = generator.block(i);
    if (dice[0] % 2 == 0 || held.empty()) {
      Index longest = 0, run = 0;
      for (int const used : owner) longest = std::max(longest, run = used != 0 ? 0 : run + 1);
      Index const wanted = 1 + static_cast<Index>(dice[1] % 20);
      auto const [first, count] = many.take(wanted);
      REQUIRE(count == std::min(wanted, longest));
      REQUIRE(many.free() == std::count(owner.begin(), owner.end(), 0) - count);
      for (Index c = first; c < first + count; ++c) REQUIRE(owner[static_cast<std::size_t>(c)]++ == 0);
      if (count > 0) held.emplace_back(first, count);
    } else {
      std::size_t const which = dice[1] % held.size();
      auto const [first, count] = held[which];
      many.give_back(first, count);
      for (Index c = first; c < first + count; ++c) --owner[static_cast<std::size_t>(c)];
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }
}

namespace {

/// A text in pages of 4 tokens: one list of the block with `deep` keys, one of the ends.
struct Text {
  std::vector<Token> tokens;
  std::vector<Row> depths;
  PageLists pages;
  Index deep;

  Text(PagePools& pools, std::vector<Token> text, Index deep_)
      : tokens(std::move(text)), depths(tokens.size(), 1), deep(deep_) {
    pages.block.resize(2);
    auto const all = static_cast<Index>(tokens.size());
    for (Index i = 0; i < pools.pages_of(all); ++i) pages.block[0].push_back(pools.block.take());
    for (Index i = 0; i < pools.pages_of(deep); ++i) pages.block[1].push_back(pools.block.take());
    for (Index i = 0; i < pools.pages_of(all); ++i) pages.ends.push_back(pools.ends.take());
  }
  /// Keeps the first `count` tokens. @return the number of the entry  @param number  of an earlier one that grows
  std::uint64_t keep(PrefixCache& cache, std::size_t count, Index deep_kept, DepthKnobs const& knobs, PagePools& pools,
                     std::uint64_t number = 0, std::array<Index, 3> marks = {}) const {
    std::vector<Index> const lengths{static_cast<Index>(count), deep_kept};
    return cache.keep(number,
                      {std::span<Token const>(tokens).first(count), knobs, std::span<Row const>(depths).first(count), &pages,
                       lengths, marks},
                      pools);
  }
};

}  // namespace

TEST_CASE("a kept prefix uses the pages that its keys lie in, and no others") {
  PagePools pools{PagePool(20), PagePool(20), true, 4};
  PrefixCache cache;
  Text text(pools, {1, 2, 3, 4, 5, 6, 7, 8, 9}, 6);
  auto const number = text.keep(cache, 5, 3, {}, pools);
  auto const users = [&](std::vector<Row> const& pages, PagePool const& pool) {
    std::vector<Index> counts;
    for (Row const page : pages) counts.push_back(pool.users(page));
    return counts;
  };
  CHECK(users(text.pages.block[0], pools.block) == std::vector<Index>{2, 2, 1});
  CHECK(users(text.pages.block[1], pools.block) == std::vector<Index>{2, 1});
  CHECK(users(text.pages.ends, pools.ends) == std::vector<Index>{2, 2, 1});
  CHECK(text.keep(cache, 5, 3, {}, pools) == 0);  // nothing new
  CHECK(cache.size() == 1);
  CHECK(users(text.pages.block[0], pools.block) == std::vector<Index>{2, 2, 1});
  REQUIRE(text.keep(cache, 9, 6, {}, pools, number) == number);  // it grows
  CHECK(cache.size() == 1);
  CHECK(users(text.pages.block[0], pools.block) == std::vector<Index>{2, 2, 2});
  CHECK(users(text.pages.block[1], pools.block) == std::vector<Index>{2, 2});
  CHECK(users(text.pages.ends, pools.ends) == std::vector<Index>{2, 2, 2});
  pools.release(text.pages);
  CHECK(pools.block.free() == 20 - 5);
  CHECK(pools.block.only_kept() == 5);
  cache.clear(pools);
  CHECK(pools.block.free() == 20);
  CHECK(pools.ends.free() == 20);
  CHECK(pools.block.only_kept() == 0);
  CHECK(!cache.drop_oldest(pools));
}

TEST_CASE("a text is found by its whole pages, its marks and its end, with the knobs that it was read with") {
  PagePools pools{PagePool(100), PagePool(100), true, 4};
  PrefixCache cache;
  Text const text(pools, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 6);
  DepthKnobs const cheap{0.5, 1, 3};
  CHECK(cache.find(text.tokens, {}).kept == nullptr);
  text.keep(cache, 11, 6, {}, pools, 0, {5, 6, 0});
  text.keep(cache, 4, 2, cheap, pools);
  auto const found = [&](std::vector<Token> const& tokens, DepthKnobs const& knobs) { return cache.find(tokens, knobs).tokens; };
  CHECK(found({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1}, {}) == 11);
  CHECK(found({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {}) == 8);  // at least one token must be read
  CHECK(found({1, 2, 3, 4, 5, 6, 7, 8}, {}) == 6);
  CHECK(found({1, 2, 3, 4, 5, 6}, {}) == 5);
  CHECK(found({1, 2, 3, 4, 5, 0, 7}, {}) == 5);
  CHECK(found({1, 2, 3, 4, 5}, {}) == 4);
  CHECK(found({1, 2, 3, 4}, {}) == 0);
  CHECK(found({2, 2, 3, 4, 5}, {}) == 0);
  CHECK(found({1}, {}) == 0);
  CHECK(found({1, 2, 3, 4, 5, 6, 7}, cheap) == 4);
  CHECK(found({1, 2, 3, 4, 5, 6, 7}, {0.5, 1, 2}) == 0);
  CHECK(found({1, 2, 3, 4, 5, 6, 7}, {0.5, 2, 3}) == 0);
  CHECK(found({1, 2, 3, 4, 5, 6, 7}, {0.6, 1, 3}) == 0);
}

TEST_CASE("a beginning has as many keys in each list as its tokens entered recursions") {
  KeptPrefix kept;
  kept.depths = {3, 1, 2, 2, 1};
  CHECK(kept.lengths(0, 3) == std::vector<Index>{0, 0, 0});
  CHECK(kept.lengths(2, 3) == std::vector<Index>{2, 1, 1});
  CHECK(kept.lengths(5, 3) == std::vector<Index>{5, 3, 1});
}

TEST_CASE("a text that goes on from a kept one takes it up") {
  PagePools pools{PagePool(100), PagePool(100), true, 4};
  PrefixCache cache;
  Text const first(pools, {1, 2, 3, 4, 5, 6}, 0), second(pools, {1, 2, 3, 4, 5, 6, 7, 8, 9}, 0), third(pools, {1, 2, 3, 4, 5, 9}, 0);
  first.keep(cache, 6, 0, {}, pools);
  auto const begun = second.keep(cache, 7, 0, {}, pools, 0, {6, 0, 0});
  CHECK(cache.size() == 1);
  for (Row const page : first.pages.block[0]) CHECK(pools.block.users(page) == 1);  // the cache uses it no more
  CHECK(second.keep(cache, 9, 0, {}, pools, begun) == begun);
  CHECK(cache.find(std::vector<Token>{1, 2, 3, 4, 5, 6, 0}, {}).tokens == 6);
  third.keep(cache, 6, 0, {}, pools);
  CHECK(cache.size() == 2);
  CHECK(cache.find(std::vector<Token>{1, 2, 3, 4, 5, 6, 7, 8, 9, 1}, {}).tokens == 9);
  CHECK(cache.find(std::vector<Token>{1, 2, 3, 4, 5, 9, 1}, {}).tokens == 6);
}

TEST_CASE("a beginning of several kept texts is found for as long as one of them is there") {
  constexpr Index room = 4000;
  PagePools pools{PagePool(room), PagePool(room), true, 4};
  PrefixCache cache;
  Philox const generator{5};
  std::vector<Token> const common{1, 2, 3, 4, 5, 6, 7, 8};
  for (std::uint64_t round = 0; round < 50; ++round) {
    Index const texts = 2 + static_cast<Index>(generator.block(round)[0] % 5);
    for (Index t = 0; t < texts; ++t) {
      auto tokens = common;
      for (Index i = 0; i < 6; ++i) tokens.push_back(static_cast<Token>(10 + t));
      Text text(pools, tokens, 0);
      text.keep(cache, tokens.size(), 0, {}, pools);
      pools.release(text.pages);
      if (generator.block(round)[1] % 2 != 0) {  // use one of them, or what they have in common
        auto wanted = common;
        for (Index i = 0; i < 7; ++i) wanted.push_back(static_cast<Token>(10 + generator.block(round)[2] % 8));
        REQUIRE(cache.find(wanted, {}).tokens >= 8);
      }
    }
    for (; cache.size() > 0; cache.drop_oldest(pools)) {
      auto wanted = common;
      wanted.push_back(0);
      REQUIRE(cache.find(wanted, {}).tokens == 8);
    }
    REQUIRE(pools.block.free() == room);
    REQUIRE(pools.ends.free() == room);
  }
}

TEST_CASE("the prefix that was used longest ago is dropped first, and there are never more than the most") {
  PagePools pools{PagePool(10'000), PagePool(10'000), true, 4};
  PrefixCache cache;
  std::vector<Text> texts;
  for (Token t = 0; t < 3; ++t) {
    texts.emplace_back(pools, std::vector<Token>{t, 1, 2}, 0);
    texts.back().keep(cache, 3, 0, {}, pools);
  }
  std::vector<Token> const first{0, 1, 2, 3};
  REQUIRE(cache.find(first, {}).kept != nullptr);
  cache.drop_oldest(pools);
  CHECK(cache.find(first, {}).kept != nullptr);
  CHECK(cache.find(std::vector<Token>{1, 1, 2, 3}, {}).kept == nullptr);
  CHECK(cache.find(std::vector<Token>{2, 1, 2, 3}, {}).kept != nullptr);
  for (Token t = 0; t < 4200; ++t) {
    Text text(pools, {t, 7}, 0);
    text.keep(cache, 2, 0, {}, pools);
    pools.release(text.pages);
  }
  CHECK(cache.size() == PrefixCache::kMostEntries);
  for (auto& text : texts) pools.release(text.pages);
  CHECK(pools.block.only_kept() == PrefixCache::kMostEntries);
  cache.clear(pools);
  CHECK(pools.block.free() == 10'000);
  CHECK(pools.ends.free() == 10'000);
}
