// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/attention.cuh"
#include "mor/backend/cuda/ops/few_rows.cuh"
#include "mor/backend/cuda/ops/stack.cuh"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

using namespace mor;
using cuda::Sm90;
using test::HopperDevice;

namespace {

constexpr Index page = 64, most_rows = cuda::tuning::Stack::most_rows;

LayerSizes sizes_of(Index hidden, Index inner, Index heads, Index kv_heads, Index head_dim) {
  return {hidden, inner, {heads, kv_heads, head_dim, 1.0 / std::sqrt(static_cast<double>(head_dim))}, 1e-5, 10000.0};
}

/// A table that results also go to.
struct Kept {
  test::DeviceMatrix<bfloat16> table;
  test::DeviceRows rows;
};

/// Weights of two layers that all layers of a stack take in turn, keys of each layer, and rows with lists of many lengths.
class Layers {
 public:
  /// @param lengths  keys that each row sees, its own included; 0: a row that has no list
  Layers(test::Device& device, LayerSizes const& sizes, Index count, std::vector<Row> const& lengths)
      : device_(&device), sizes_(sizes), count_(count), lengths_(lengths), queries_(sizes.attention.num_heads * sizes.attention.head_dim),
        keys_(sizes.attention.num_kv_heads * sizes.attention.head_dim), x_(device, most_rows, sizes.hidden_size, noise(most_rows, sizes.hidden_size, 1.0, 1)),
        positions_(device, positions()), begins_(device, begins()), limits_(device, lengths), pages_(device, pages()), offsets_(device, iota()) {
    for (Index i = 0; i < 2; ++i) {
      auto const seed = static_cast<std::uint64_t>(10 * i);
      qkv_.push_back(weights(queries_ + 2 * keys_, sizes.hidden_size, 2 + seed));
      o_.push_back(weights(sizes.hidden_size, queries_, 3 + seed));
      gate_up_.push_back(weights(2 * sizes.intermediate_size, sizes.hidden_size, 4 + seed));
      down_.push_back(weights(sizes.hidden_size, sizes.intermediate_size, 5 + seed));
      norms_.emplace_back(device, 1, sizes.hidden_size, noise(1, sizes.hidden_size, 1.0, 6 + seed));
    }
    for (std::uint64_t const seed : {100U, 101U}) initial_.emplace_back(device, storage_rows(), keys_, noise(storage_rows(), keys_, 1.0, seed), 8);
    for (Index i = 0; i < 2 * count_; ++i) planes_.emplace_back(device, storage_rows(), keys_, 8);
    forget_keys();
  }

  /// The planes become what they were before any run.
  void forget_keys() {
    for (std::size_t i = 0; i < planes_.size(); ++i) {
      auto const from = initial_[i % 2].read();
      cuda::check(cudaMemcpy(planes_[i].view().data, from.data, static_cast<std::size_t>(((from.rows - 1) * from.stride + from.cols)) * sizeof(bfloat16),
                             cudaMemcpyDeviceToDevice),
                  "cudaMemcpy");
    }
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  [[nodiscard]] std::vector<bfloat16> keys() const {
    std::vector<bfloat16> all;
    for (auto const& plane : planes_) {
      auto const values = plane.raw_values();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  /// Rows [first, first + rows) by the kernels that compute one step of a layer each.
  [[nodiscard]] std::vector<double> by_steps(Index first, Index rows) {
    auto const& s = sizes_;
    test::DeviceMatrix<bfloat16> hidden(*device_, rows, s.hidden_size), q(*device_, rows, queries_), attended(*device_, rows, queries_),
        activated(*device_, rows, s.intermediate_size);
    test::DeviceMatrix<float> lse(*device_, rows, s.attention.num_heads);
    auto const context = device_->context();
    KeyList const list = lists(first, rows, limits_.read());
    View<bfloat16 const> x = x_.read().row_range(first, rows);
    for (Index l = 0; l < count_; ++l) {
      auto const at = static_cast<std::size_t>(l % 2), plane = static_cast<std::size_t>(2 * l);
      cuda::few_rows_project_keys<Sm90, bfloat16>(context, x, norms_[at].span(), s.rms_norm_eps, qkv_[at].read(), positions_rows(first, rows),
                                                  s.attention.head_dim, s.rope_theta, list, q.view(), planes_[plane].view(), planes_[plane + 1].view());
      cuda::attention<Sm90, bfloat16>(context, q.read(), planes_[plane].read(), planes_[plane + 1].read(), list, s.attention, attended.view(), lse.view());
      cuda::few_rows_linear_residual<Sm90, bfloat16>(context, attended.read(), o_[at].read(), x, hidden.view());
      cuda::few_rows_norm_swiglu<Sm90, bfloat16>(context, hidden.read(), norms_[at].span(), s.rms_norm_eps, gate_up_[at].read(), activated.view());
      cuda::few_rows_linear_residual<Sm90, bfloat16>(context, activated.read(), down_[at].read(), hidden.read(), hidden.view());
      x = hidden.read();
    }
    return hidden.values();
  }
  /// In one launch. @param write  the rows' limits in the list that they write to; null: those that they read to
  /// @param count  rows that the launch finds in the device's memory; null: it is not told
  /// @param sources  the rows that go in; null: those from `first` on  @param kept  also gets the results
  [[nodiscard]] test::DeviceMatrix<bfloat16> at_once(cuda::LayerStack<Sm90> const& stack, Index first, Index rows, bool rows_apart,
                                                     test::DeviceRows const* write = nullptr, test::DeviceRows const* count = nullptr,
                                                     test::DeviceRows const* sources = nullptr, Kept* kept = nullptr) {
    test::DeviceMatrix<bfloat16> out(*device_, rows, sizes_.hidden_size, 8);
    std::vector<StackedLayer<bfloat16>> layers;
    for (Index l = 0; l < count_; ++l) {
      auto const at = static_cast<std::size_t>(l % 2), plane = static_cast<std::size_t>(2 * l);
      layers.push_back({qkv_[at].read(), o_[at].read(), gate_up_[at].read(), down_[at].read(), norms_[at].span(), norms_[at].span(),
                        planes_[plane].view(), planes_[plane + 1].view()});
    }
    KeyList const read = lists(first, rows, limits_.read());
    KeyList const written = write == nullptr ? read : lists(first, rows, write->read());
    StackRows<bfloat16> run{{x_.read().row_range(first, rows)}, positions_rows(first, rows)};
    if (count != nullptr) run.count = count->read();
    run.rows_apart = rows_apart;
    run.out = out.view();
    if (sources != nullptr) run.x = {x_.read(), sources->read()};
    if (kept != nullptr) run.kept = {kept->table.view(), kept->rows.read()};
    stack.run(device_->context(), layers, run, read, written);
    return out;
  }
  [[nodiscard]] LayerSizes const& sizes() const { return sizes_; }
  /// Row `row` continues the text of the row before it; the list of the first has room for both.
  void share_list(std::size_t row) {
    auto all = begins();
    all[row] = all[row - 1];
    begins_ = test::DeviceRows(*device_, all);
  }

 private:
  static std::vector<double> noise(Index rows, Index cols, double scale, std::uint64_t seed) {
    auto values = test::random_values<bfloat16>(rows * cols, seed);
    for (double& value : values) value *= scale;
    return values;
  }
  [[nodiscard]] test::DeviceMatrix<bfloat16> weights(Index out, Index in, std::uint64_t seed) const {
    return {*device_, out, in, noise(out, in, 1.0 / std::sqrt(static_cast<double>(in)), seed), 8};
  }
  /// Pages before those of a row.
  [[nodiscard]] Index pages_before(Index row) const {
    Index count = 0;
    for (Index i = 0; i < row; ++i) count += std::max<Index>(1, (lengths_[static_cast<std::size_t>(i)] + page - 1) / page);
    return count;
  }
  [[nodiscard]] Index storage_rows() const { return pages_before(most_rows) * page; }
  [[nodiscard]] std::vector<Row> positions() const {
    std::vector<Row> all;
    for (Row const length : lengths_) all.push_back(std::max<Row>(length - 1, 0) * 3);
    return all;
  }
  [[nodiscard]] std::vector<Row> begins() const {
    std::vector<Row> all;
    for (Index i = 0; i < most_rows; ++i) all.push_back(static_cast<Row>(pages_before(i)));
    return all;
  }
  [[nodiscard]] std::vector<Row> pages() const {
    std::vector<Row> all;
    for (Index i = pages_before(most_rows); i > 0; --i) all.push_back(static_cast<Row>(i - 1));
    return all;
  }
  [[nodiscard]] static std::vector<Row> iota() {
    std::vector<Row> all;
    for (Index i = 0; i <= most_rows; ++i) all.push_back(static_cast<Row>(i));
    return all;
  }
  [[nodiscard]] std::span<Row const> positions_rows(Index first, Index rows) const {
    return positions_.read().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
  }
  [[nodiscard]] KeyList lists(Index first, Index rows, std::span<Row const> limits) {
    host_offsets_ = iota();
    host_offsets_.resize(static_cast<std::size_t>(rows + 1));
    KeyList list;
    list.num_sequences = list.num_queries = rows;
    list.max_limit = std::max<Row>(1, *std::max_element(lengths_.begin(), lengths_.end()));
    list.query_offsets = offsets_.read().first(static_cast<std::size_t>(rows + 1));
    list.host_query_offsets = host_offsets_;
    list.key_begin = begins_.read().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
    list.limits = limits.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
    list.page_size = page;
    list.pages = pages_.read();
    return list;
  }

  test::Device* device_;
  LayerSizes sizes_;
  Index count_;
  std::vector<Row> lengths_;
  Index queries_, keys_;
  test::DeviceMatrix<bfloat16> x_;
  test::DeviceRows positions_, begins_, limits_, pages_, offsets_;
  std::vector<test::DeviceMatrix<bfloat16>> qkv_, o_, gate_up_, down_, norms_, initial_, planes_;
  std::vector<Row> host_offsets_;
};

/// Lengths around those where steps, turns of the warps and pages end, each several times.
std::vector<std::vector<Row>> const many_lengths{
    {1, 128, 0, 2, 15, 16, 17, 63, 64}, {65, 159, 160, 161, 320, 321, 1000}, {0}};

[[nodiscard]] bool same_bits(std::vector<bfloat16> const& a, bfloat16 const* b) {
  return std::memcmp(a.data(), b, a.size() * sizeof(bfloat16)) == 0;
}

void check_stack(test::Device& device, LayerSizes const& sizes, Index count, std::vector<Row> const& lengths) {
  CAPTURE(sizes.hidden_size, sizes.intermediate_size, sizes.attention.head_dim, count, lengths);
  Layers layers(device, sizes, count, lengths);
  cuda::LayerStack<Sm90> const stack(device, sizes);
  REQUIRE(stack.takes(most_rows, *std::max_element(lengths.begin(), lengths.end()), page));
  auto const expected = layers.by_steps(0, most_rows);
  auto const expected_keys = layers.keys();
  layers.forget_keys();
  auto const all = layers.at_once(stack, 0, most_rows, true);
  REQUIRE(all.intact());
  REQUIRE(test::relative_error(all.values(), expected) < 2e-2);
  std::vector<double> keys, written;
  for (bfloat16 const value : expected_keys) keys.push_back(static_cast<double>(static_cast<float>(value)));
  for (bfloat16 const value : layers.keys()) written.push_back(static_cast<double>(static_cast<float>(value)));
  REQUIRE(test::relative_error(written, keys) < 2e-2);

  auto const bits = all.raw_values();
  for (int again = 0; again < 3; ++again) {
    bool const rows_apart = again % 2 != 0;
    for (Index const rows : {1, 32, 64, 2, 8, 9, 31, 5, 48, 16, 33, 40, 17, 51, 24, 7, 63, 25, 49, 1}) {
      CAPTURE(rows_apart, rows);
      layers.forget_keys();
      auto const some = layers.at_once(stack, 0, rows, rows_apart);
      REQUIRE(same_bits(some.raw_values(), bits.data()));
      REQUIRE(some.intact());
    }
    for (Index const first : {1, 2, 9, 31, 63}) {
      CAPTURE(rows_apart, first);
      layers.forget_keys();
      REQUIRE(same_bits(layers.at_once(stack, first, 1, rows_apart).raw_values(), bits.data() + first * sizes.hidden_size));
    }
  }
}

/// With lists of all the lengths, and with no list at all.
void check_stack(test::Device& device, LayerSizes const& sizes, Index count) {
  for (auto const& some : many_lengths) {
    std::vector<Row> lengths;
    for (std::size_t i = 0; i < most_rows; ++i) lengths.push_back(some[i % some.size()]);
    check_stack(device, sizes, count, lengths);
  }
}

}  // namespace

TEST_CASE("a stack of layers in one launch gives what its steps give, and a row the same bits in any batch", "[cuda]") {
  HopperDevice device;
  check_stack(device, sizes_of(960, 2560, 15, 5, 64), 7);
}

TEST_CASE("a stack of layers takes other shapes: small, wide heads, one layer, more than one launch has", "[cuda]") {
  HopperDevice device;
  check_stack(device, sizes_of(576, 1536, 9, 3, 64), 4);
  check_stack(device, sizes_of(512, 1376, 4, 2, 128), 3);
  check_stack(device, sizes_of(1024, 4096, 16, 4, 64), 2);
  check_stack(device, sizes_of(64, 96, 1, 1, 64), 1);
  check_stack(device, sizes_of(128, 256, 2, 1, 64), 43);
}

TEST_CASE("rows of one text see one another's new keys in a stack of layers", "[cuda]") {
  HopperDevice device;
  std::vector<Row> lengths(most_rows, 30);
  for (std::size_t i = 1; i < 12; ++i) lengths[i] = lengths[i - 1] + 1;
  Layers layers(device, sizes_of(960, 2560, 15, 5, 64), 5, lengths);
  for (std::size_t i = 1; i < 12; ++i) layers.share_list(i);
  cuda::LayerStack<Sm90> const stack(device, layers.sizes());
  auto const expected = layers.by_steps(0, most_rows);
  layers.forget_keys();
  auto const got = layers.at_once(stack, 0, most_rows, false);
  REQUIRE(test::relative_error(got.values(), expected) < 2e-2);
}

TEST_CASE("rows that write no keys read those of others in a stack of layers", "[cuda]") {
  HopperDevice device;
  std::vector<Row> const lengths(most_rows, 40);
  Layers layers(device, sizes_of(576, 1536, 9, 3, 64), 2, lengths);
  cuda::LayerStack<Sm90> const stack(device, layers.sizes());
  static_cast<void>(layers.at_once(stack, 0, 20, true));  // keys of rows 0 to 19 are written
  auto const keys = layers.keys();
  test::DeviceRows const nothing(device, std::vector<Row>(most_rows, 0));
  auto const apart = layers.at_once(stack, 0, 20, true, &nothing).raw_values();
  REQUIRE(same_bits(layers.at_once(stack, 0, 20, false, &nothing).raw_values(), apart.data()));
  REQUIRE(same_bits(keys, layers.keys().data()));
  layers.forget_keys();
  REQUIRE(same_bits(layers.at_once(stack, 0, 20, true).raw_values(), apart.data()));
}

TEST_CASE("launches of few layers, which not all blocks take part in, and of many follow one another on one stack", "[cuda]") {
  HopperDevice device;
  LayerSizes const sizes = sizes_of(192, 512, 3, 1, 64);
  std::vector<Row> const lengths(most_rows, 40);
  Layers few(device, sizes, cuda::tuning::Stack::few_layers, lengths), many(device, sizes, cuda::tuning::Stack::few_layers + 1, lengths);
  auto const alone = [&](Layers& layers) { return layers.at_once(cuda::LayerStack<Sm90>(device, sizes), 0, most_rows, true).raw_values(); };
  auto const few_bits = alone(few), many_bits = alone(many);
  cuda::LayerStack<Sm90> const stack(device, sizes);
  for (int again = 0; again < 4; ++again) {
    for (Index const rows : {64, 9, 33, 1, 20}) {
      CAPTURE(again, rows);
      for (int run = 0; run <= again; ++run) REQUIRE(same_bits(few.at_once(stack, 0, rows, true).raw_values(), few_bits.data()));
      REQUIRE(same_bits(many.at_once(stack, 0, rows, true).raw_values(), many_bits.data()));
    }
  }
}

TEST_CASE("a stack of layers takes rows from anywhere in a table and puts results anywhere in another", "[cuda]") {
  HopperDevice device;
  for (Index const count : {1, 3, 43}) {
    CAPTURE(count);
    Layers layers(device, sizes_of(192, 512, 3, 1, 64), count, std::vector<Row>(most_rows, 20));
    cuda::LayerStack<Sm90> const stack(device, layers.sizes());
    auto const straight = layers.at_once(stack, 0, most_rows, true).raw_values();
    std::vector<Row> sources, targets;
    for (Row i = 0; i < static_cast<Row>(most_rows); ++i) {
      sources.push_back(i < 32 ? 5 : i);  // the same row many times
      targets.push_back((7 * i + 3) % 71);
    }
    test::DeviceRows const from(device, sources);
    Index const cols = layers.sizes().hidden_size;
    for (Index const rows : {1, 9, 33, 64}) {
      CAPTURE(rows);
      layers.forget_keys();
      Kept kept{{device, 71, cols, 8}, {device, targets}};
      auto const untouched = kept.table.raw_values();
      auto const out = layers.at_once(stack, 0, rows, true, nullptr, nullptr, &from, &kept);
      auto const results = out.raw_values(), table = kept.table.raw_values();
      std::vector<bool> target(71, false);
      for (Index i = 0; i < rows; ++i) {
        auto const at = static_cast<std::size_t>(i);
        target[static_cast<std::size_t>(targets[at])] = true;
        REQUIRE(std::memcmp(results.data() + i * cols, table.data() + targets[at] * cols, static_cast<std::size_t>(cols) * sizeof(bfloat16)) == 0);
        if (sources[at] != static_cast<Row>(i)) continue;
        REQUIRE(std::memcmp(results.data() + i * cols, straight.data() + i * cols, static_cast<std::size_t>(cols) * sizeof(bfloat16)) == 0);
      }
      for (Index r = 0; r < 71; ++r) {
        if (target[static_cast<std::size_t>(r)]) continue;
        REQUIRE(std::memcmp(untouched.data() + r * cols, table.data() + r * cols, static_cast<std::size_t>(cols) * sizeof(bfloat16)) == 0);
      }
      REQUIRE(out.intact());
      REQUIRE(kept.table.intact());
    }
  }
}

TEST_CASE("a stack of layers leaves rows alone from a count on that only the device knows", "[cuda]") {
  HopperDevice device;
  Layers layers(device, sizes_of(576, 1536, 9, 3, 64), 3, std::vector<Row>(most_rows, 40));
  cuda::LayerStack<Sm90> const stack(device, layers.sizes());
  auto const all = layers.at_once(stack, 0, most_rows, true).raw_values();
  for (auto const& [rows, most] : std::vector<std::pair<Index, Index>>{
           {5, 64}, {0, 64}, {8, 32}, {30, 64}, {0, 16}, {64, 64}, {33, 48}, {200, 64}, {24, 48}, {25, 48}, {9, 32}, {1, 16}, {17, 48}, {1, 1}}) {
    CAPTURE(rows, most);
    layers.forget_keys();
    auto const keys = layers.keys();
    test::DeviceRows const count(device, {static_cast<Row>(rows)});
    auto const some = layers.at_once(stack, 0, most, rows % 2 == 0, nullptr, &count);
    Index const done = std::min(rows, most) * layers.sizes().hidden_size;
    auto const values = some.raw_values();
    REQUIRE(same_bits({values.begin(), values.begin() + done}, all.data()));
    auto const untouched = test::DeviceMatrix<bfloat16>(device, most, layers.sizes().hidden_size, 8).raw_values();
    REQUIRE(same_bits({values.begin() + done, values.end()}, untouched.data() + done));
    REQUIRE((rows == 0) == same_bits(keys, layers.keys().data()));
  }
}

TEST_CASE("a stack of layers says what it does not take", "[cuda]") {
  HopperDevice device;
  cuda::LayerStack<Sm90> const stack(device, sizes_of(576, 1536, 9, 3, 64));
  REQUIRE(stack.takes(most_rows, 1024, 64));
  REQUIRE_FALSE(stack.takes(most_rows + 1, 64, 64));
  REQUIRE_FALSE(stack.takes(1, 1025, 64));
  REQUIRE_FALSE(stack.takes(1, 64, 0));
  REQUIRE_FALSE(cuda::LayerStack<Sm90>(device, sizes_of(576, 1536, 18, 6, 32)).takes(1, 64, 64));
}

TEST_CASE("a stack of layers refuses layers and rows that do not fit it", "[cuda]") {
  HopperDevice device;
  cuda::LayerStack<Sm90> const stack(device, sizes_of(64, 96, 1, 1, 64));
  alignas(16) static bfloat16 memory[128];  // only the address counts
  auto const view = [](Index rows, Index cols, Index stride) { return View<bfloat16>(memory, rows, cols, stride); };
  std::span<bfloat16 const> const norm(memory, 64);
  StackedLayer<bfloat16> const layer{view(192, 64, 64), view(64, 64, 64), view(192, 64, 64), view(64, 96, 96), norm, norm, view(64, 64, 64), view(64, 64, 72)};
  REQUIRE(stack.takes(layer));
  auto const refuses = [&](auto const& change) {
    auto other = layer;
    change(other);
    return !stack.takes(other);
  };
  REQUIRE(refuses([&](auto& other) { other.qkv = view(128, 64, 64); }));
  REQUIRE(refuses([&](auto& other) { other.o = view(64, 96, 96); }));
  REQUIRE(refuses([&](auto& other) { other.gate_up = view(96, 64, 64); }));
  REQUIRE(refuses([&](auto& other) { other.down = view(64, 96, 97); }));
  REQUIRE(refuses([&](auto& other) { other.input_norm = norm.first(63); }));
  REQUIRE(refuses([&](auto& other) { other.post_attention_norm = std::span<bfloat16 const>(memory + 1, 64); }));
  REQUIRE(refuses([&](auto& other) { other.plane_k = view(64, 128, 128); }));
  REQUIRE(refuses([&](auto& other) { other.plane_v = view(64, 64, 68); }));

  test::DeviceMatrix<bfloat16> const rows(device, 1, 64), narrow(device, 1, 56);
  test::DeviceRows const numbers(device, {0, 1});
  auto const one = numbers.read().first(1);
  KeyList const list{1, 1, 1, numbers.read(), {}, one, one, page, one};
  KeyList elsewhere = list;
  elsewhere.pages = numbers.read().last(1);
  std::vector<StackedLayer<bfloat16>> const none, layers{layer};
  auto const run = [&](auto const& some, View<bfloat16 const> x, View<bfloat16> out, KeyList const& write) {
    StackRows<bfloat16> run{{x}, one};
    run.out = out;
    stack.run(device.context(), some, run, list, write);
  };
  REQUIRE_THROWS_AS(run(none, rows.read(), rows.view(), list), mor::error);
  REQUIRE_THROWS_AS(run(layers, narrow.read(), rows.view(), list), mor::error);
  REQUIRE_THROWS_AS(run(layers, rows.read(), narrow.view(), list), mor::error);
  REQUIRE_THROWS_AS(run(layers, rows.read(), rows.view(), elsewhere), mor::error);
}
