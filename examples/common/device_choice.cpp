// SPDX-License-Identifier: Apache-2.0
#include "common/device_choice.hpp"

#include "common/cuda_models.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace examples {

namespace {

namespace fs = std::filesystem;

mor::DType parse_type(std::string const& name) {
  if (name == "float32") return mor::DType::F32;
  if (name == "bfloat16") return mor::DType::BF16;
  mor::fail(mor::ErrorCode::InvalidArgument, "unknown element type", "--dtype", "float32 or bfloat16",
            mor::printable(name));
}

/// The folder that an environment variable names; empty for none, and for one that moves with the working folder.
fs::path folder_of(char const* variable) {
  char const* const value = std::getenv(variable);
  fs::path const path(value != nullptr ? value : "");
  return path.is_absolute() ? path : fs::path();
}

}  // namespace

std::string backend_name(bool cuda, mor::DType dtype) {
  return std::string(cuda ? "cuda " : "host ") + (dtype == mor::DType::BF16 ? "bfloat16" : "float");
}

DeviceChoice choose_device(std::string const& device, std::optional<std::string> const& dtype, int threads) {
  if (device != "auto" && device != "cpu" && device != "cuda") {
    mor::fail(mor::ErrorCode::InvalidConfig, "unknown device", "--device", "one of auto, cpu, cuda",
              mor::printable(device));
  }
  DeviceChoice choice;
  choice.threads = threads;
  choice.cuda = device == "cuda" || (device == "auto" && cuda_available());
  if (choice.cuda) choice.gpu = cuda_device_name();
  choice.dtype = choice.cuda ? mor::DType::BF16 : mor::DType::F32;
  if (dtype) choice.dtype = parse_type(*dtype);
  if (!choice.cuda && choice.dtype != mor::DType::F32) {
    mor::fail(mor::ErrorCode::Unsupported, "the processor computes in float32", "--dtype", "float32", *dtype);
  }
  return choice;
}

std::optional<double> peak_flops(std::string const& gpu) {
  auto const has = [&](char const* part) { return gpu.find(part) != std::string::npos; };
  // The cards for a slot are slower, and of a slice nobody knows the share.
  if (has("PCIe") || has("NVL") || has("MIG")) return std::nullopt;
  if (has("H100") || has("H200")) return 989.4e12;
  return std::nullopt;
}

std::string gemm_record_path() {
  fs::path folder = folder_of("XDG_CACHE_HOME");
  if (folder.empty()) {
    folder = folder_of("HOME");
    if (folder.empty()) return {};
    folder /= ".cache";
  }
  folder /= "mor";
  std::error_code problem;
  fs::create_directories(folder, problem);
  return problem ? std::string() : (folder / "gemm.txt").string();
}

}  // namespace examples
