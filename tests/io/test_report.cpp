// SPDX-License-Identifier: Apache-2.0
#include "mor/io/report_html.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

using mor::ErrorCode;
using mor::Index;
using mor::io::ChartPoint;
using mor::io::MetricsLog;
using mor::io::parse_metrics;
using mor::test::fails_with;

namespace {

std::string training_row(Index step, std::string const& loss) {
  return "{\"step\":" + std::to_string(step) + ",\"loss\":" + loss +
         ",\"grad_norm\":0.5,\"learning_rate\":3e-4,\"ms\":100,\"tokens_per_second\":20000,\"tokens\":" +
         std::to_string(2048 * step) + ",\"mean_depth\":1.9,\"depth_share\":[0.4,0.3,0.3],\"other\":{\"x\":1}}\n";
}

/// A run of `steps` steps whose loss falls, evaluated every tenth.
std::string run_text(Index steps) {
  std::string text;
  for (Index step = 1; step <= steps; ++step) {
    std::string const loss = std::to_string(3.0 + 7.0 / static_cast<double>(step));
    text += training_row(step, loss);
    if (step % 10 == 0) text += "{\"step\":" + std::to_string(step) + ",\"validation_loss\":" + loss + "}\n";
  }
  return text;
}

std::size_t count(std::string const& text, std::string const& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

bool holds(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a metrics log is read row by row, unknown fields ignored") {
  MetricsLog const log = parse_metrics(run_text(20), "m");
  REQUIRE(log.training.size() == 20);
  REQUIRE(log.validation.size() == 2);
  REQUIRE(log.training[1].step == 2);
  REQUIRE(log.training[1].loss == 6.5);
  REQUIRE(log.training[1].learning_rate == 3e-4);
  REQUIRE(log.training[1].tokens == 4096.0);
  REQUIRE(log.training[1].depth_share == std::vector<double>{0.4, 0.3, 0.3});
  REQUIRE(log.validation[1].step == 20);
  REQUIRE(log.unreadable_lines.empty());
}

TEST_CASE("losses that are not finite are kept as what they are") {
  MetricsLog const log =
      parse_metrics(training_row(1, "\"nan\"") + training_row(2, "\"inf\"") + training_row(3, "\"-inf\"") +
                        training_row(4, "null") + training_row(5, "2.5"),
                    "m");
  REQUIRE(log.training.size() == 5);
  REQUIRE(std::isnan(*log.training[0].loss));
  REQUIRE(*log.training[1].loss == std::numeric_limits<double>::infinity());
  REQUIRE(*log.training[2].loss == -std::numeric_limits<double>::infinity());
  REQUIRE(std::isnan(*log.training[3].loss));
}

TEST_CASE("a torn last line is ignored, another unreadable line is skipped and counted") {
  std::string const good = run_text(3);
  MetricsLog const torn = parse_metrics(good + "{\"step\":4,\"lo", "m");
  REQUIRE(torn.training.size() == 3);
  REQUIRE(torn.unreadable_lines.empty());
  MetricsLog const broken = parse_metrics(good + "{\"step\":4,\"lo\n\n" + training_row(5, "2") + "[]\n", "m");
  REQUIRE(broken.training.size() == 4);
  REQUIRE(broken.unreadable_lines == std::vector<Index>{4, 7});
  std::string unfinished = run_text(2);
  unfinished.pop_back();  // complete but for its newline
  REQUIRE(parse_metrics(unfinished, "m").training.size() == 2);
}

TEST_CASE("steps that a resumed run logged again replace the earlier ones") {
  MetricsLog const log = parse_metrics(training_row(1, "5") + training_row(2, "4") + training_row(3, "3") +
                                           training_row(2, "4.5") + training_row(3, "3.5"),
                                       "m");
  REQUIRE(log.training.size() == 3);
  REQUIRE(log.training[1].loss == 4.5);
  REQUIRE(log.training[2].loss == 3.5);
}

TEST_CASE("a file without any row is refused with the reason") {
  REQUIRE(fails_with(
      ErrorCode::MalformedFile, [] { (void)parse_metrics("", "m.jsonl"); }, "m.jsonl", "no metrics"));
  REQUIRE(fails_with(
      ErrorCode::MalformedFile, [] { (void)parse_metrics("hello\nworld\n", "m.jsonl"); }, "line 1"));
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [] { (void)mor::io::read_metrics("/nowhere/m.jsonl"); }, "/nowhere"));
}

TEST_CASE("the report is one file that loads nothing and shows every chart") {
  mor::test::TemporaryFolder const folder;
  mor::io::write_file(folder / "metrics.jsonl", run_text(200));
  mor::io::write_report(folder / "metrics.jsonl", folder / "report.html", "A <run> & \"more\"");
  std::string const page = mor::io::read_file(folder / "report.html");
  REQUIRE(page.starts_with("<!doctype html>"));
  REQUIRE(holds(page, "<title>A &lt;run&gt; &amp; &quot;more&quot;</title>"));
  for (char const* part : {"http:", "https:", "url(", "@import", "<link", "<img", "src=", "<run>"}) {
    CAPTURE(part);
    REQUIRE_FALSE(holds(page, part));
  }
  REQUIRE(holds(page, "prefers-color-scheme:dark"));
  for (char const* title : {"Training loss", "Validation loss", "Learning rate", "Gradient norm", "Throughput",
                            "Share of tokens at each depth"}) {
    CAPTURE(title);
    REQUIRE(holds(page, std::string("<h2>") + title + "</h2>"));
  }
  REQUIRE(count(page, "class=\"area\"") == 3);
  REQUIRE(holds(page, "<dt>Steps</dt><dd>201<"));  // numbered from 0
  REQUIRE(holds(page, "40.0% / 30.0% / 30.0%"));
  REQUIRE(holds(page, "best 3.0350 at step 200"));
  REQUIRE(holds(page, "200 training rows, 20 validation rows"));
  REQUIRE_FALSE(holds(page, "class=\"notice\""));
  for (char const* tag : {"figure", "svg", "script", "div", "ul", "dl", "g", "text", "main", "body"}) {
    CAPTURE(tag);
    REQUIRE(count(page, std::string("<") + tag + ">") + count(page, std::string("<") + tag + " ") ==
            count(page, std::string("</") + tag + ">"));
  }
}

TEST_CASE("values that are not finite break the line and are marked and announced") {
  std::string text;
  for (Index step = 1; step <= 30; ++step) {
    text += training_row(step, step == 10 ? "\"nan\"" : step == 20 ? "\"inf\"" : "2." + std::to_string(step));
  }
  std::string const page = mor::io::report_page(parse_metrics(text, "m"), "t", "m");
  REQUIRE(holds(page, "2 steps with a training loss that is not finite: 10, 20"));
  REQUIRE(holds(page, "each step at step 10: nan"));
  REQUIRE(holds(page, "each step at step 20: inf"));
  REQUIRE(count(page, "path class=\"bad\"") == 2);
  std::size_t const begin = page.find("<path class=\"line faint\" d=\"");
  std::string const line = page.substr(begin, page.find("/>", begin) - begin);
  REQUIRE(count(line, "M") == 3);
  REQUIRE(count(line, "L") == 25);
}

TEST_CASE("a report of a log with almost nothing in it is still a page") {
  for (std::string const text :
       {"{\"step\":1,\"loss\":2}\n", "{\"step\":0,\"validation_loss\":3}\n", "{\"step\":5}\n",
        "{\"step\":1,\"loss\":\"nan\"}\n", "{\"step\":1,\"loss\":2,\"depth_share\":[1]}\n",
        "{\"step\":1,\"loss\":0,\"grad_norm\":0,\"tokens_per_second\":\"inf\",\"tokens\":\"nan\"}\n",
        "{\"step\":9223372036854775807,\"loss\":1e300,\"grad_norm\":1e-300}\n"}) {
    CAPTURE(text);
    std::string const page = mor::io::report_page(parse_metrics(text, "m"), "t", "m");
    REQUIRE(holds(page, "</html>"));
    REQUIRE_FALSE(holds(page, "=\"nan"));
    REQUIRE_FALSE(holds(page, "=\"inf"));
  }
}

TEST_CASE("a long run gives a page of bounded size") {
  std::string const page = mor::io::report_page(parse_metrics(run_text(20000), "m"), "t", "m");
  REQUIRE(page.size() < 1'000'000);
}

TEST_CASE("thinning out a line keeps its ends, its extremes and everything that is not finite") {
  std::vector<ChartPoint> points;
  for (int i = 0; i < 10000; ++i) points.push_back({static_cast<double>(i), std::sin(i * 0.01)});
  points[1234].y = 50;
  points[4321].y = -50;
  points[7777].y = std::numeric_limits<double>::quiet_NaN();
  std::vector<ChartPoint> const kept = mor::io::detail::thin_out(points, 100);
  REQUIRE(kept.size() < 410);
  auto const has = [&](double x) {
    return std::any_of(kept.begin(), kept.end(), [x](ChartPoint const& point) { return point.x == x; });
  };
  for (double const x : {0.0, 1234.0, 4321.0, 7777.0, 9999.0}) REQUIRE(has(x));
  REQUIRE(std::is_sorted(kept.begin(), kept.end(), [](auto const& a, auto const& b) { return a.x < b.x; }));
}

TEST_CASE("axis marks are round numbers in one notation") {
  auto const labels = [](double low, double high, bool logarithmic = false) {
    std::string text;
    for (mor::io::Tick const& tick : mor::io::axis_ticks({low, high, 0, 1, logarithmic}, 5)) text += tick.label + " ";
    return text;
  };
  REQUIRE(labels(0, 1) == "0 0.2 0.4 0.6 0.8 1.0 ");
  REQUIRE(labels(2.4, 8.1) == "3 4 5 6 7 8 ");
  REQUIRE(labels(0, 6000) == "0 1,000 2,000 3,000 4,000 5,000 6,000 ");
  REQUIRE(labels(0, 25000) == "0 5k 10k 15k 20k 25k ");
  REQUIRE(labels(0, 2.4e6) == "0 0.5M 1.0M 1.5M 2.0M ");
  REQUIRE(labels(0, 0.0032) == "0 0.0005 0.0010 0.0015 0.0020 0.0025 0.0030 ");
  REQUIRE(labels(0, 2.1e-7) == "0 5e-08 1e-07 1.5e-07 2e-07 ");
  REQUIRE(labels(0.1, 200, true) == "0.1 1 10 100 ");
  REQUIRE(labels(-0.5, 0.5) == "-0.4 -0.2 0 0.2 0.4 ");
}

TEST_CASE("a spike does not flatten the rest of an axis, but a falling curve is shown whole") {
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) values.push_back(3.0 + 0.001 * i);
  REQUIRE(mor::io::value_range(values, false, false).high < 4.2);
  values.push_back(1e30);
  REQUIRE(mor::io::value_range(values, false, false).high < 5.0);
  REQUIRE(mor::io::value_range({}, false, false).contains(0.5));
  REQUIRE(mor::io::value_range({2.0}, false, false).contains(2.0));
  REQUIRE(mor::io::value_range({0.0, 0.0}, true, false).high > 0);
}

TEST_CASE("numbers are formatted the same in every locale") {
  REQUIRE(mor::io::fixed(2.5, 2) == "2.50");
  REQUIRE(mor::io::fixed(-0.001, 1) == "0.0");
  REQUIRE(mor::io::fixed(std::nan(""), 1) == "nan");
  REQUIRE(mor::io::significant(3.14159, 4) == "3.142");
  REQUIRE(mor::io::short_count(950) == "950");
  REQUIRE(mor::io::short_count(12500) == "12.5k");
  REQUIRE(mor::io::short_count(3.2e6) == "3.2M");
  REQUIRE(mor::io::short_count(1.05e9) == "1.05B");
  REQUIRE(mor::io::grouped(1234567) == "1,234,567");
  REQUIRE(mor::io::grouped(-1234) == "-1,234");
  REQUIRE(mor::io::grouped(12) == "12");
  REQUIRE(mor::io::percent(1.0 / 3.0) == "33.3%");
  REQUIRE(mor::io::html_escape("<a href='x'>&\"") == "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
}
