// SPDX-License-Identifier: Apache-2.0
/// @file
/// The main function of every test program with Catch2 version 2. As in version 3, a run in which every test skipped
/// ends with status 4, which ctest reports as skipped.
#define CATCH_CONFIG_RUNNER
#include "support/catch.hpp"

namespace {

constexpr int all_skipped_status = 4;
int finished_count = 0;  // tests that ended without SKIP

class SkipCounter : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;

  void testCaseStarting(Catch::TestCaseInfo const&) override { skips_before_ = mor::test::skip_count; }
  void testCaseEnded(Catch::TestCaseStats const&) override { finished_count += mor::test::skip_count == skips_before_; }

 private:
  int skips_before_ = 0;
};

CATCH_REGISTER_LISTENER(SkipCounter)

}  // namespace

int main(int argument_count, char** arguments) {
  int const status = Catch::Session().run(argument_count, arguments);
  bool const all_skipped = finished_count == 0 && mor::test::skip_count > 0;
  return status == 0 && all_skipped ? all_skipped_status : status;
}
