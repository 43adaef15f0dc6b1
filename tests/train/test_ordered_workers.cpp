// SPDX-License-Identifier: Apache-2.0
#include "mor/train/ordered_workers.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using mor::train::OrderedWorkers;

TEST_CASE("results come back in the order of their jobs, whichever is done first") {
  for (int const threads : {1, 2, 5}) {
    OrderedWorkers<int> workers(threads, [](int& job) {
      if (job % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      job = job * job;
    });
    int taken = 0;
    for (int i = 0; i < 100; ++i) {
      workers.submit(i);
      if (workers.pending() < 7) continue;
      int const result = workers.take();
      REQUIRE(result == taken * taken);
      ++taken;
    }
    for (; workers.pending() > 0; ++taken) REQUIRE(workers.take() == taken * taken);
    REQUIRE(taken == 100);
  }
}

TEST_CASE("the first failed job in order is the one that is reported") {
  OrderedWorkers<int> workers(4, [](int& job) {
    if (job == 3) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (job >= 3) throw std::runtime_error("job " + std::to_string(job));
  });
  for (int i = 0; i < 8; ++i) workers.submit(i);
  for (int i = 0; i < 3; ++i) CHECK(workers.take() == i);
  CHECK_THROWS_WITH(workers.take(), "job 3");
  CHECK_THROWS_WITH(workers.take(), "job 4");
}

TEST_CASE("workers that go away finish what they have begun and drop the rest") {
  std::atomic<int> begun{0}, done{0};
  {
    OrderedWorkers<int> workers(2, [&](int&) {
      ++begun;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      ++done;
    });
    for (int i = 0; i < 50; ++i) workers.submit(i);
    (void)workers.take();
  }
  CHECK(begun == done);
  CHECK(done < 50);
}

TEST_CASE("nothing can be taken where nothing was handed in") {
  OrderedWorkers<int> workers(1, [](int&) {});
  CHECK(mor::test::fails_with(mor::ErrorCode::InvalidArgument, [&] { (void)workers.take(); }, "no job"));
  CHECK(mor::test::fails_with(mor::ErrorCode::InvalidArgument, [] { OrderedWorkers<int>(0, [](int&) {}); }, "thread"));
}

}  // namespace
