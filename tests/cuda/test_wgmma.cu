// SPDX-License-Identifier: Apache-2.0
// Each form of Hopper's matrix instruction and of the copy engine by itself, so that a wrong descriptor or swizzle
// shows where it is. Elements are small integers: results are exact.
#include "cuda/device.cuh"

#include "mor/backend/cuda/kernels/attention_sm90_tile.cuh"
#include "mor/backend/cuda/ops/tensor_map.cuh"

using namespace mor;

namespace {

using namespace mor::cuda;
using namespace mor::cuda::sm90;

/// Four 8 x 8 matrices from shared memory: lane t gives the address of row t % 8 of matrix t / 8.
__device__ __forceinline__ void load_matrices(std::uint32_t (&to)[4], std::uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared::cta.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}

/// Reads a warpgroup's [64, Dim] tile of rows as a left operand.
template <int Dim>
__device__ __forceinline__ void load_operand(std::uint32_t tile, Place const& place,
                                             std::uint32_t (&operand)[Dim / 16][4]) {
  int const lane = place.thread % kWarpSize, row = place.thread / kWarpSize * 16 + lane % 16;
  std::uint32_t const start = tile + static_cast<std::uint32_t>(row * kSwizzleRowBytes);
#pragma unroll
  for (int step = 0; step < Dim / 16; ++step) {
    int const piece = (step % 4 * 2 + lane / 16) ^ (row % 8);
    load_matrices(operand[step], start + static_cast<std::uint32_t>(step / 4 * kBoxBytes + piece * 16));
  }
}

constexpr int kMostBytes = 3 * 128 * 128 * 2;

struct TileStorage {
  alignas(1024) unsigned char a[128 * 128 * 2];
  alignas(1024) unsigned char b[128 * 128 * 2];
  cuda::Barrier full;
};

/// Element (row, column) of a tile of `rows` rows in shared memory, as the descriptors expect it.
__device__ bfloat16& element(unsigned char* tile, int rows, int row, int column) {
  int const block = column / 64, piece = column % 64 / 8;
  int const at = block * rows * 128 + row * 128 + ((piece ^ (row % 8)) * 16) + column % 8 * 2;
  return *reinterpret_cast<bfloat16*>(tile + at);
}

__device__ void fill(unsigned char* tile, View<bfloat16 const> from) {
  int const rows = static_cast<int>(from.rows), cols = static_cast<int>(from.cols);
  for (int i = static_cast<int>(threadIdx.x); i < rows * cols; i += 128) {
    element(tile, rows, i / cols, i % cols) = from(i / cols, i % cols);
  }
}

template <int N>
__device__ void store(float const (&d)[N / 2], cuda::sm90::Place const& place, View<float> out) {
  for (int i = 0; i < N / 2; ++i) {
    out(place.row + i / 2 % 2 * 8, i / 4 * 8 + place.column + i % 2) = d[i];
  }
}

enum class Form { SharedRows, RegisterRows, RegisterColumns, SharedColumns };

/// out [64, N] = a [64, K] b^T for b [N, K], or a b for b [K, N] ("Columns").
template <Form form, int N, int K>
__global__ void __launch_bounds__(256)
    multiply_kernel(View<bfloat16 const> a, View<bfloat16 const> b, View<float> out) {
  auto& shared = cuda::shared_storage<TileStorage>();
  if (threadIdx.x < 128) {
    fill(shared.a, a);
    fill(shared.b, b);
    cuda::fence_async();
  }
  __syncthreads();
  if (threadIdx.x < 128) return;  // the second warpgroup computes: warpgroup 0 in the numbering of the kernels
  cuda::sm90::Place const place = cuda::sm90::place_of_thread();
  std::uint32_t const left = cuda::shared_address(shared.a), right = cuda::shared_address(shared.b);
  float d[N / 2] = {};
  std::uint32_t operand[K / 16][4] = {};
  if constexpr (form == Form::RegisterRows || form == Form::RegisterColumns) {
    load_operand<K>(left, place, operand);
  }
  cuda::wgmma_fence();
  if constexpr (form == Form::SharedRows) {
    cuda::sm90::multiply_rows<K, N>(d, left, right);
  } else if constexpr (form == Form::RegisterRows) {
    cuda::sm90::multiply_rows<K, N>(d, operand, right);
  } else if constexpr (form == Form::RegisterColumns) {
    cuda::sm90::add_weighted_rows<N, K>(d, operand, right);
  } else {
    for (int step = 0; step < K / 16; ++step) {
      auto const block = static_cast<std::uint32_t>(step / 4), within = static_cast<std::uint32_t>(step % 4 * 32);
      cuda::wgmma<false, true>(
          d, cuda::advanced(cuda::row_operand(left), block * 8192 + within),
          cuda::advanced(cuda::column_operand(right, K * 128), static_cast<std::uint32_t>(step) * 2048), step > 0);
    }
  }
  cuda::wgmma_commit();
  cuda::wgmma_wait<0>();
  cuda::touch(d);
  cuda::sm90::touch(operand);
  store<N>(d, place, out);
}

std::vector<double> small_integers(Index count, std::uint64_t seed) {
  std::vector<double> values = test::random_vector<double>(count, seed);
  for (double& value : values) value = std::floor(value * 8.0);
  return values;
}

void need_hopper(test::Device const& device) {
  if (device.facts().capability != 90) SKIP("needs compute capability 9.0");
}

template <Form form, int N, int K>
void check_form() {
  test::Device device;
  need_hopper(device);
  constexpr bool columns = form == Form::RegisterColumns || form == Form::SharedColumns;
  constexpr Index b_rows = columns ? K : N, b_cols = columns ? N : K;
  auto const a = small_integers(64 * K, 1), b = small_integers(b_rows * b_cols, 2);
  std::vector<double> expected;
  for (std::size_t i = 0; i < 64; ++i) {
    for (std::size_t j = 0; j < N; ++j) {
      double sum = 0.0;
      for (std::size_t k = 0; k < K; ++k) sum += a[i * K + k] * (columns ? b[k * N + j] : b[j * K + k]);
      expected.push_back(sum);
    }
  }
  test::DeviceMatrix<bfloat16> const device_a(device, 64, K, a), device_b(device, b_rows, b_cols, b);
  test::DeviceMatrix<float> const out(device, 64, N);
  cuda::launch(device.context(), "multiply", {dim3(1), 256, kMostBytes}, multiply_kernel<form, N, K>, device_a.read(),
               device_b.read(), out.view());
  REQUIRE(out.values() == expected);
}

struct BoxArguments {
  cuda::TensorMap map;
  int column, row;
  View<float> out;

  void note_to(auto& log) const { log.note(map.opaque, column, row, out); }
};

/// Fetches one box and writes it out through the layout that the products expect.
template <int Threads>
__global__ void __launch_bounds__(Threads) fetch_kernel(BoxArguments const __grid_constant__ arguments) {
  auto& shared = cuda::shared_storage<TileStorage>();
  if (threadIdx.x == 0) {
    cuda::make_barrier(shared.full, 1);
    cuda::publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    cuda::arrive_expecting(shared.full, cuda::sm90::kBoxBytes);
    cuda::copy_box(cuda::shared_address(shared.a), arguments.map, shared.full, arguments.column, arguments.row);
  }
  cuda::wait(shared.full, 0);
  for (int i = static_cast<int>(threadIdx.x); i < 64 * 64; i += Threads) {
    arguments.out(i / 64, i % 64) = static_cast<float>(element(shared.a, 64, i / 64, i % 64));
  }
}

}  // namespace

TEST_CASE("wgmma multiplies rows in shared memory", "[cuda][quick]") {
  SECTION("one block of columns") {
    check_form<Form::SharedRows, 64, 64>();
  }
  SECTION("many right rows") {
    check_form<Form::SharedRows, 128, 64>();
  }
  SECTION("two blocks of columns") {
    check_form<Form::SharedRows, 64, 128>();
  }
  SECTION("both") {
    check_form<Form::SharedRows, 128, 128>();
  }
}

TEST_CASE("wgmma multiplies rows in registers with rows in shared memory", "[cuda][quick]") {
  SECTION("one block of columns") {
    check_form<Form::RegisterRows, 64, 64>();
  }
  SECTION("two blocks of columns") {
    check_form<Form::RegisterRows, 128, 128>();
  }
}

TEST_CASE("wgmma multiplies rows in registers with columns in shared memory", "[cuda][quick]") {
  SECTION("few rows, one block") {
    check_form<Form::RegisterColumns, 64, 64>();
  }
  SECTION("many rows, one block") {
    check_form<Form::RegisterColumns, 64, 128>();
  }
  SECTION("few rows, two blocks") {
    check_form<Form::RegisterColumns, 128, 64>();
  }
  SECTION("many rows, two blocks") {
    check_form<Form::RegisterColumns, 128, 128>();
  }
}

TEST_CASE("wgmma multiplies rows with columns in shared memory", "[cuda][quick]") {
  SECTION("one block") {
    check_form<Form::SharedColumns, 64, 64>();
  }
  SECTION("two blocks") {
    check_form<Form::SharedColumns, 128, 64>();
  }
}

TEST_CASE("the copy engine brings boxes in the swizzled layout, with zeros outside of the matrix", "[cuda][quick]") {
  test::Device device;
  need_hopper(device);
  Index const rows = 150, cols = 192;
  auto const values = small_integers(rows * cols, 3);
  test::DeviceMatrix<bfloat16> const matrix(device, rows, cols, values, 8);
  for (auto const& [column, row] : {std::pair{0, 0}, {64, 3}, {128, 85}, {64, 120}, {0, 149}}) {
    CAPTURE(column, row);
    test::DeviceMatrix<float> const out(device, 64, 64);
    BoxArguments arguments{};
    arguments.map = cuda::tensor_map(matrix.read(), 140);
    arguments.column = column, arguments.row = row, arguments.out = out.view();
    cuda::launch(device.context(), "fetch", {dim3(1), 128, kMostBytes}, fetch_kernel<128>, arguments);
    std::vector<double> expected;
    for (int i = 0; i < 64; ++i) {
      for (int j = 0; j < 64; ++j) {
        expected.push_back(row + i < 140 ? values[static_cast<std::size_t>((row + i) * cols + column + j)] : 0.0);
      }
    }
    REQUIRE(out.values() == expected);
  }
}
