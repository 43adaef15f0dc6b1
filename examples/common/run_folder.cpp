// SPDX-License-Identifier: Apache-2.0
#include "common/run_folder.hpp"

#include "common/model_folder.hpp"
#include "common/run_lock.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"
#include "mor/io/safetensors.hpp"

#include <algorithm>
#include <span>
#include <utility>

namespace examples {

namespace {

namespace fs = std::filesystem;

constexpr char optimizer_file[] = "optimizer.safetensors";
constexpr char state_file[] = "state.json";
constexpr char clock_file[] = "clock.json";
constexpr char first_moment[] = "first_moment";
constexpr char second_moment[] = "second_moment";

void write_in_place(fs::path const& path, std::string const& text) {
  mor::io::FileWriter writer(path, mor::io::WriteMode::InPlace);
  writer.write(text);
  writer.commit();
}

mor::train::CheckpointFile copied(RunFolder const& folder, char const* name) {
  return {name, [&folder, name](fs::path const& path) { write_in_place(path, mor::io::read_file(folder.file(name))); }};
}

/// One moment after the other, so that no more than one is held here.
void save_moments(fs::path const& path, AnyModel const& model) {
  Index const size = model.layout().total_size();
  mor::io::SafetensorsWriter writer(path,
                                    {{first_moment, mor::DType::F32, {size}}, {second_moment, mor::DType::F32, {size}}},
                                    {}, mor::io::WriteMode::InPlace);
  for (auto const& tensor : writer.tensors()) {
    auto const values = tensor.name == first_moment ? model.first_moment() : model.second_moment();
    writer.write(std::as_bytes(std::span<float const>(values)));
  }
  writer.commit();
}

/// Whether there is more than the lock of a run that never began.
bool holds_files(fs::path const& folder) {
  return std::any_of(fs::directory_iterator(folder), fs::directory_iterator(),
                     [](fs::directory_entry const& entry) { return entry.path().filename() != lock_file; });
}

void load_moments(fs::path const& path, AnyModel& model) {
  auto const file = mor::io::SafetensorsFile::open(path);
  std::vector<float> first(static_cast<std::size_t>(model.layout().total_size())), second(first.size());
  file.read_float32(first_moment, first);
  file.read_float32(second_moment, second);
  model.set_moments(first, second);
}

}  // namespace

void RunFolder::check(bool resume, bool overwrite) const {
  if (resume && overwrite) {
    mor::fail(mor::ErrorCode::InvalidArgument, "a run is either resumed or overwritten", "--resume, --overwrite",
              "one of them", "both");
  }
  if (root_.empty()) mor::fail(mor::ErrorCode::InvalidArgument, "the name is empty", "--out", "a folder");
  if (fs::exists(root_) && !fs::is_directory(root_)) {
    mor::fail(mor::ErrorCode::InvalidArgument, "not a folder", root_.string());
  }
  bool const used = fs::exists(root_) && holds_files(root_);
  bool const ours = used && fs::exists(file(settings_file));
  if (used && !ours) {
    mor::fail(mor::ErrorCode::InvalidArgument, "the folder holds something that is not a run of this program",
              root_.string(), "an empty or new folder", "other files");
  }
  if (used && !resume && !overwrite) {
    mor::fail(mor::ErrorCode::InvalidArgument, "there is a run in this folder", root_.string(),
              "--resume to go on with it, --overwrite to delete it, or another --out", "none of them");
  }
}

void RunFolder::create(bool overwrite) const {
  if (overwrite) {
    fs::remove_all(checkpoints());
    for (char const* name : {config_file, weights_file, tokenizer_file, metrics_file, report_file, settings_file}) {
      fs::remove(file(name));
    }
  }
  fs::create_directories(root_);
}

mor::train::SaveReport save_checkpoint(mor::train::CheckpointStore& store, RunFolder const& folder,
                                       AnyModel const& model, RunState const& state) {
  std::vector<mor::train::CheckpointFile> files{
      {weights_file, [&](fs::path const& path) { save_weights(path, model, false, mor::io::WriteMode::InPlace); }},
      {optimizer_file, [&](fs::path const& path) { save_moments(path, model); }},
      {state_file, [&](fs::path const& path) { write_in_place(path, to_json(state.train)); }},
      {clock_file,
       [&](fs::path const& path) {
         write_in_place(path, nlohmann::json{{"seconds", state.seconds}}.dump() + "\n");
       }},
      copied(folder, config_file)};
  if (fs::exists(folder.file(tokenizer_file))) files.push_back(copied(folder, tokenizer_file));
  return store.save(state.train.step, files);
}

std::optional<mor::train::Checkpoint> newest_checkpoint(RunFolder const& folder) {
  std::vector<mor::error> rejected;
  auto checkpoint = mor::train::find_latest(folder.checkpoints(), &rejected);
  if (rejected.empty()) return checkpoint;
  auto const& damage = rejected.front();
  std::string const advice = checkpoint
                                 ? "; delete this checkpoint to go on from step " + mor::text_of(checkpoint->step())
                                 : "; no other checkpoint is there, start anew with --overwrite";
  mor::fail(damage.code(), damage.problem() + advice, damage.where(), damage.expected(), damage.got());
}

RunState load_checkpoint(mor::train::Checkpoint const& checkpoint, AnyModel& model) {
  load_weights(checkpoint.path(weights_file), model);
  load_moments(checkpoint.path(optimizer_file), model);
  RunState state;
  auto const state_path = checkpoint.path(state_file);
  state.train = mor::train::parse_train_state(mor::io::read_file(state_path), state_path.string());
  model.set_optimizer_steps(state.train.optimizer_steps);
  auto const clock_path = checkpoint.path(clock_file).string();
  auto const document = mor::io::parse_json(mor::io::read_file(clock_path), clock_path);
  mor::io::JsonObject root(document, clock_path);
  state.seconds = root.number("seconds");
  return state;
}

}  // namespace examples
