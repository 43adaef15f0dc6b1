// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads what surrounds the model in a Hugging Face `tokenizer.json`: normalizer, pre-tokenizer, post-processor,
/// decoder. Either the pre-tokenizer is ByteLevel, alone or after Digits; or spaces become U+2581, by the normalizers
/// Prepend and Replace or the pre-tokenizer Metaspace. What the file asks for and this library does not do is refused,
/// never ignored.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/io/json.hpp"
#include "mor/io/space_rules.hpp"
#include "mor/io/tokenizer_model.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::io::detail {

[[noreturn]] inline void refuse_unsupported(std::string what, std::string where, std::string known, std::string got) {
  fail(ErrorCode::Unsupported, std::move(what), std::move(where), std::move(known), std::move(got));
}

/// One step of a pipeline, with the path of its field.
struct PipelineStep {
  JsonObject json;
  std::string type;
};

/// The steps of a part of the file: those of a Sequence, or the one that stands alone.
/// @param list  the Sequence's field, such as "normalizers"
inline void collect_steps(nlohmann::json const& value, std::string const& file, std::string const& path,
                          std::string const& list, std::vector<PipelineStep>& steps) {
  JsonObject step(value, file, path);
  std::string const type = step.string("type");
  if (type != "Sequence") {
    steps.push_back({std::move(step), type});
    return;
  }
  std::size_t index = 0;
  for (nlohmann::json const& inner : step.array(list)) {
    collect_steps(inner, file, path + "." + list + "[" + std::to_string(index++) + "]", list, steps);
  }
}

/// Fills the parts of a TokenizerModel that the pipeline decides.
class PipelineReader {
 public:
  /// Both must outlive the reader.
  PipelineReader(JsonObject& root, TokenizerModel& model) : root_(root), model_(model) {}

  void run() {
    check_header();
    std::vector<PipelineStep> decoder = steps_of("decoder", "decoders");
    std::vector<PipelineStep> pre_tokenizer = steps_of("pre_tokenizer", "pretokenizers");
    std::vector<PipelineStep> normalizer;
    if (root_.has_value("normalizer")) normalizer = steps_of("normalizer", "normalizers");
    if (is_byte_level(decoder) || is_byte_level(pre_tokenizer)) {
      model_.kind = TokenizerKind::ByteLevel;
      if (root_.has_value("normalizer")) {
        refuse_unsupported("unsupported value", root_.where("normalizer"), "null", describe(root_.at("normalizer")));
      }
      read_byte_level(pre_tokenizer);
      expect_byte_level_decoder(decoder);
    } else {
      model_.kind = TokenizerKind::SentencePiece;
      read_spaces(normalizer, pre_tokenizer);
      read_space_decoder(decoder);
    }
    if (root_.has_value("post_processor")) read_post_processor();
  }

  /// Whether the decoder turns `<0x..>` into bytes.
  [[nodiscard]] bool decodes_bytes() const noexcept { return decodes_bytes_; }

 private:
  using Json = nlohmann::json;
  static constexpr char const* known_steps = "one of ByteLevel, Digits, Sequence, Metaspace";

  void check_header() {
    if (root_.contains("version") && root_.string("version") != "1.0") {
      refuse_unsupported("unknown version", root_.where("version"), "\"1.0\"", printable(root_.string("version")));
    }
    for (char const* key : {"truncation", "padding"}) {
      if (!root_.has_value(key)) continue;
      refuse_unsupported("unsupported value", root_.where(key), "null", describe(root_.at(key)));
    }
  }

  /// None for null.
  [[nodiscard]] std::vector<PipelineStep> steps_of(std::string const& key, std::string const& list) {
    std::vector<PipelineStep> steps;
    Json const& value = root_.at(key);
    if (!value.is_null()) collect_steps(value, root_.file(), key, list, steps);
    return steps;
  }

  [[nodiscard]] static bool is_byte_level(std::vector<PipelineStep> const& steps) {
    for (PipelineStep const& step : steps) {
      if (step.type == "ByteLevel") return true;
    }
    return false;
  }

  [[noreturn]] static void refuse_type(PipelineStep const& step, char const* what, std::string known) {
    refuse_unsupported(what, step.json.where("type"), std::move(known), printable(step.type));
  }

  static void expect_text(JsonObject& step, std::string const& key, std::string_view wanted) {
    std::string const& text = step.string(key);
    if (text == wanted) return;
    refuse_unsupported("unsupported value", step.where(key), printable(wanted), printable(text));
  }

  void read_byte_level(std::vector<PipelineStep>& steps) {
    bool found = false;
    for (PipelineStep& step : steps) {
      if (found) refuse_type(step, "a pre-tokenizer after ByteLevel", "ByteLevel last");
      if (step.type == "ByteLevel") {
        found = true;
        if (step.json.boolean("add_prefix_space")) {
          refuse_unsupported("unsupported value", step.json.where("add_prefix_space"), "false", "true");
        }
        model_.split.split_words = step.json.boolean_or("use_regex", true);
      } else if (step.type == "Digits") {
        bool const individual = step.json.boolean("individual_digits");
        if (model_.split.digits != DigitSplit::Individual) {
          model_.split.digits = individual ? DigitSplit::Individual : DigitSplit::Runs;
        }
      } else {
        refuse_type(step, "unknown pre-tokenizer", known_steps);
      }
    }
    if (!found) refuse_unsupported("no ByteLevel pre-tokenizer", root_.where("pre_tokenizer"), known_steps, "none");
  }

  void expect_byte_level_decoder(std::vector<PipelineStep> const& steps) {
    if (steps.empty()) refuse_unsupported("unsupported value", root_.where("decoder"), "ByteLevel", "no decoder");
    for (PipelineStep const& step : steps) {
      if (step.type != "ByteLevel" || steps.size() > 1) refuse_type(step, "unsupported type", "ByteLevel");
    }
  }

  void read_spaces(std::vector<PipelineStep>& normalizer, std::vector<PipelineStep>& pre_tokenizer) {
    if (pre_tokenizer.empty() && normalizer.empty()) {
      refuse_unsupported("no pre-tokenizer", root_.where("pre_tokenizer"), known_steps, "none");
    }
    for (PipelineStep& step : pre_tokenizer) {
      if (step.type != "Metaspace") refuse_type(step, "unknown pre-tokenizer", known_steps);
      if (pre_tokenizer.size() > 1) refuse_type(step, "more than one pre-tokenizer", "one Metaspace");
      if (!normalizer.empty()) refuse_type(step, "Metaspace beside a normalizer", "one of them");
      read_metaspace(step.json);
    }
    if (!normalizer.empty()) read_space_normalizer(normalizer);
  }

  void read_metaspace(JsonObject& step) {
    expect_text(step, "replacement", space_mark);
    std::string const scheme = step.string_or("prepend_scheme", "always");
    if (scheme == "first") {
      model_.spaces.prefix = SpacePrefix::Start;
    } else if (scheme == "always") {
      model_.spaces.prefix = SpacePrefix::Pieces;
    } else if (scheme != "never") {
      refuse_unsupported("unknown value", step.where("prepend_scheme"), "one of first, always, never",
                         printable(scheme));
    }
    if (!step.boolean_or("add_prefix_space", true)) {  // how older files say never
      if (step.contains("prepend_scheme") && scheme != "never") {
        fail(ErrorCode::MalformedFile, "contradicts prepend_scheme", step.where("add_prefix_space"), "true", "false");
      }
      model_.spaces.prefix = SpacePrefix::None;
    }
    model_.spaces.split = step.boolean_or("split", true);
  }

  void read_space_normalizer(std::vector<PipelineStep>& steps) {
    bool prepends = false, replaces = false;
    for (PipelineStep& step : steps) {
      bool const first = step.type == "Prepend" ? !std::exchange(prepends, true) : !std::exchange(replaces, true);
      if (step.type != "Prepend" && step.type != "Replace") {
        refuse_type(step, "unknown normalizer", "null, or one of Prepend, Replace, Sequence");
      }
      if (!first) refuse_type(step, "a normalizer twice", "one Prepend and one Replace");
      if (step.type == "Prepend") {
        expect_text(step.json, "prepend", space_mark);
      } else {
        expect_replacement(step.json, " ", space_mark);
      }
    }
    if (!replaces) refuse_unsupported("no Replace", root_.where("normalizer"), "Replace of spaces", "none");
    model_.spaces.prefix = prepends ? SpacePrefix::Always : SpacePrefix::None;
  }

  static void expect_replacement(JsonObject& step, std::string_view from, std::string_view to) {
    JsonObject pattern = step.object("pattern");
    if (!pattern.contains("String")) {
      refuse_unsupported("unsupported pattern", step.where("pattern"), "a String", describe(step.at("pattern")));
    }
    expect_text(pattern, "String", from);
    expect_text(step, "content", to);
  }

  /// The steps, each of which may be absent but the first, in this order: Replace or Metaspace, ByteFallback, Fuse,
  /// Strip.
  void read_space_decoder(std::vector<PipelineStep>& steps) {
    if (steps.empty()) refuse_unsupported("no decoder", root_.where("decoder"), "Replace or Metaspace", "none");
    int last = -1;
    for (PipelineStep& step : steps) {
      int const place = decoder_place(step);
      if (place <= last) refuse_type(step, "a decoder out of place", "Replace, ByteFallback, Fuse, Strip");
      if (last < 0 && place != 0) refuse_type(step, "a decoder out of place", "Replace or Metaspace first");
      if (place == 0) read_space_replacement(step);
      if (place == 1) decodes_bytes_ = true;
      if (place == 3) {
        if (last != 2) refuse_type(step, "Strip without Fuse", "Fuse before Strip");
        read_strip(step.json);
      }
      last = place;
    }
  }

  [[nodiscard]] static int decoder_place(PipelineStep const& step) {
    if (step.type == "Replace" || step.type == "Metaspace") return 0;
    if (step.type == "ByteFallback") return 1;
    if (step.type == "Fuse") return 2;
    if (step.type == "Strip") return 3;
    refuse_type(step, "unknown decoder", "one of Sequence, Replace, Metaspace, ByteFallback, Fuse, Strip");
  }

  void read_space_replacement(PipelineStep& step) {
    if (step.type == "Replace") {
      expect_replacement(step.json, space_mark, " ");
      return;
    }
    expect_text(step.json, "replacement", space_mark);
    bool const strips =
        step.json.string_or("prepend_scheme", "always") != "never" && step.json.boolean_or("add_prefix_space", true);
    if (strips) model_.spaces.strip = SpaceStrip::FirstToken;
  }

  void read_strip(JsonObject& step) {
    expect_text(step, "content", " ");
    if (step.integer("start", 0, 1) == 1) {
      if (model_.spaces.strip != SpaceStrip::None) {
        refuse_unsupported("a space dropped twice", step.where("start"), "0 after Metaspace", "1");
      }
      model_.spaces.strip = SpaceStrip::One;
    }
    (void)step.integer("stop", 0, 0);
  }

  void read_post_processor() {
    std::vector<PipelineStep> steps = steps_of("post_processor", "processors");
    bool found = false;
    for (PipelineStep& step : steps) {
      if (step.type == "ByteLevel") continue;  // concerns offsets, which this library does not have
      if (step.type != "TemplateProcessing" || std::exchange(found, true)) {
        refuse_type(step, "unsupported post-processor", "ByteLevel, one TemplateProcessing, or both in a Sequence");
      }
      read_template(step.json);
    }
  }

  /// `single` is a list of special tokens with the text, a Sequence, somewhere among them.
  void read_template(JsonObject& step) {
    JsonObject tokens = step.object("special_tokens");
    Json const& parts = step.array("single");
    bool seen_text = false;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      std::string const path = "post_processor.single[" + std::to_string(i) + "]";
      JsonObject part(parts[i], root_.file(), path);
      if (part.contains("Sequence")) {
        if (std::exchange(seen_text, true)) {
          refuse_unsupported("the text twice in the template", part.where("Sequence"), "once", "again");
        }
        continue;
      }
      std::string const name = part.object("SpecialToken").string("id");
      JsonObject special = tokens.object(name);
      for (Json const& id : special.array("ids")) {
        Index const value = json_integer(id, tokens.where(name), 0, static_cast<Index>(max_vocab_size) - 1);
        (seen_text ? model_.end : model_.begin).push_back(static_cast<Token>(value));
      }
    }
    if (!seen_text) fail(ErrorCode::MalformedFile, "a template without the text", step.where("single"), "a Sequence");
  }

  JsonObject& root_;
  TokenizerModel& model_;
  bool decodes_bytes_ = false;
};

}  // namespace mor::io::detail
