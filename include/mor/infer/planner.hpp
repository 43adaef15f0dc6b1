// SPDX-License-Identifier: Apache-2.0
/// @file
/// `Planner`: the host's half of a serving engine. It admits requests to slots, lends them pages, turns every decision
/// into edits of the device's tables, and reports of ticks into events. It knows no backend and no model.
#pragma once

#include "mor/core/serving_tables.hpp"
#include "mor/infer/admission.hpp"
#include "mor/infer/engine_options.hpp"
#include "mor/infer/event_log.hpp"
#include "mor/infer/planner_setup.hpp"
#include "mor/infer/sequence.hpp"
#include "mor/infer/slot_lists.hpp"
#include "mor/infer/table_edits.hpp"
#include "mor/math/serving.hpp"

#include <algorithm>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace mor::infer {

class Planner {
 public:
  explicit Planner(PlannerSetup setup)
      : setup_(std::move(setup)),
        edits_(setup_.shape),
        lists_(setup_, edits_),
        admission_(setup_),
        slots_(static_cast<std::size_t>(setup_.shape.slots)),
        cell_owner_(static_cast<std::size_t>(setup_.shape.cells()), -1),
        prompt_cells_(setup_.shape.slots, setup_.shape.prompt_cells) {
    statistics_.depths.assign(static_cast<std::size_t>(setup_.shape.recursions) + 1, 0);
    statistics_.total_pages = lists_.pools().block.size();
    statistics_.total_end_pages = lists_.pools().ends.size();
    for (Index slot = 0; slot < setup_.shape.slots; ++slot) {
      slots_[static_cast<std::size_t>(slot)].number = slot;
      cell_owner_[static_cast<std::size_t>(slot)] = slot;
    }
  }
  Planner(Planner const&) = delete;
  Planner& operator=(Planner const&) = delete;

  RequestId submit(Request request) {
    check_request(setup_, lists_.pools(), request);
    if (static_cast<Index>(queue_.size()) >= setup_.options.queue) {
      fail(ErrorCode::OutOfMemory, "the queue is full", "Engine::submit", "at most " + text_of(setup_.options.queue) + " waiting requests",
           text_of(queue_.size()));
    }
    auto sequence = std::make_unique<Sequence>();
    sequence->id = next_id_++;
    sequence->text = request.prompt;
    sequence->most_depth = request.depth.max_depth == 0 ? setup_.shape.recursions : request.depth.max_depth;
    sequence->least_depth = setup_.full_depth ? sequence->most_depth : request.depth.min_depth;
    sequence->last_position = longest_text(setup_, request) - 1;
    sequence->request = std::move(request);
    ++statistics_.submitted;
    RequestId const id = sequence->id;
    queue_.push_back(std::move(sequence));
    return id;
  }

  /// True where the request waits or runs; its `Finished` event comes with the next tick.
  bool cancel(RequestId id) {
    auto const is_it = [id](auto const& sequence) { return sequence->id == id; };
    auto const running = std::ranges::find_if(by_age_, [&](Slot const* slot) { return is_it(slot->sequence); });
    if (running != by_age_.end()) {
      finish(evict(**running), FinishReason::Cancelled);
      return true;
    }
    // Behind those that were pre-empted, of which each had a slot, requests wait in the order in which they came.
    auto const first_new = std::find_if(queue_.begin(), queue_.end(), [](auto const& sequence) { return !sequence->preempted; });
    auto waiting = std::find_if(queue_.begin(), first_new, is_it);
    if (waiting == first_new) {
      waiting = std::lower_bound(first_new, queue_.end(), id, [](auto const& sequence, RequestId wanted) { return sequence->id < wanted; });
    }
    if (waiting == queue_.end() || !is_it(*waiting)) return false;
    finish(std::move(*waiting), FinishReason::Cancelled);
    queue_.erase(waiting);
    return true;
  }

  /// Prepares launch number `tick` while `in_flight` earlier ticks may not have reported: growth of lists, prompt chunks, new
  /// guests. `edits` are to be made before it. @param ticks  of the launch at most: none of its edits come between them
  TickDemand plan(Index tick, Index in_flight, Index ticks = 1) {
    tick_ = tick;
    in_flight_ = in_flight;
    ticks_ = ticks;
    if (calls_ != answered_) edits_.answer(answered_ = calls_);
    // Pre-emption takes the last ones.
    for (std::size_t i = 0; i < by_age_.size(); ++i) grow(*by_age_[i]);
    if (start_chunks()) admit();  // where a prompt waits for pages, newer requests must not take those that come free
    return demand();
  }

  /// Takes the report of a tick of launch `tick`; events collect until `hand_out_events`.
  void absorb(Index tick, std::span<Row const> words, Index finished_room) {
    ServingReport const report{{}, finished_room};
    auto const at = [&](Index word) { return words[static_cast<std::size_t>(word)]; };
    statistics_.recursion_rows += at(ServingReport::RecursionRows);
    for (Index i = 0; i < at(ServingReport::FinishedRows); ++i) {
      row_finished(tick, at(report.finished(i)), at(report.finished(i) + 1));
    }
    for (Index i = 0; i < at(ServingReport::SampledRows); ++i) {
      Index const word = report.sampled(i);
      token_made(tick, at(word), at(word + 1), math::word_float(at(word + 2)), at(word + 3) != 0);
    }
  }

  /// So many ticks have called for the host (`TickLog::Calls`), all of which have been absorbed.
  void called(Row calls) { calls_ = calls; }

  /// The tick that was planned last has run the prelude.
  void prelude_ran() {
    for (Slot* const slot : by_age_) slot->chunk.entered = true;
  }

  [[nodiscard]] bool idle() const { return queue_.empty() && running() == 0; }
  [[nodiscard]] Index running() const { return static_cast<Index>(by_age_.size()); }
  [[nodiscard]] bool has_events() const { return !events_.empty(); }
  /// What happened since the last call; valid until the next one, whatever happens meanwhile.
  [[nodiscard]] std::span<Event const> hand_out_events() { return events_.hand_out(); }
  [[nodiscard]] TableEdits const& edits() const { return edits_; }
  void edits_made() { edits_.made(); }
  void drop_prefixes() { lists_.drop_prefixes(); }

  [[nodiscard]] EngineStatistics statistics() const {
    EngineStatistics now = statistics_;
    now.queued = static_cast<Index>(queue_.size());
    now.running = running();
    now.free_pages = lists_.pools().block.free();
    now.free_end_pages = lists_.pools().ends.free();
    now.cached_pages = lists_.pools().block.only_kept();
    return now;
  }
  [[nodiscard]] EngineStatistics& counters() { return statistics_; }

 private:
  // Room in lists.

  /// Tokens whose rows a decoding slot may have started by the end of this launch. The last token is never read.
  [[nodiscard]] Index tokens_bound(Slot const& slot) const {
    return std::min(slot.sequence->length() + in_flight_ + ticks_, slot.sequence->last_position);
  }
  /// The same of a slot whose rows up to token `tokens` enter with the first tick of this launch: it decodes from the next on.
  [[nodiscard]] Index entering_bound(Slot const& slot, Index tokens) const {
    return tokens == slot.goal ? std::min(tokens + ticks_ - 1, slot.sequence->last_position) : tokens;
  }

  /// Room for the rows that a decoding slot may start; takes it from the youngest where there is none.
  void grow(Slot& slot) {
    if (!slot.may_decode()) return;
    while (!lists_.lengthen(slot, std::max(tokens_bound(slot), slot.goal))) {
      Slot* const victim = by_age_.back();
      preempt(*victim);
      if (victim == &slot) return;
    }
  }
  /// Back to the head of the queue; its text is read again later, and goes on as it would have.
  void preempt(Slot& slot) {
    auto sequence = evict(slot);
    if (sequence->depths.size() > sequence->depths_before.size()) sequence->depths_before = sequence->depths;
    sequence->depths.clear();
    sequence->preempted = true;
    queue_.push_front(std::move(sequence));
    ++statistics_.preempted;
  }
  /// Frees a slot whose rows may be at work.
  std::unique_ptr<Sequence> evict(Slot& slot) {
    edits_.stop(slot.number);
    for (Index i = 0; i < slot.chunk.rows; ++i) edits_.stop(slot.chunk.first_cell + i);
    return leave(slot);
  }
  /// Frees a slot.
  std::unique_ptr<Sequence> leave(Slot& slot) {
    free_chunk(slot);
    lists_.release(slot);
    by_age_.erase(std::find(by_age_.begin(), by_age_.end(), &slot));
    return std::move(slot.sequence);
  }
  void free_chunk(Slot& slot) {
    if (slot.chunk.rows == 0) return;
    std::fill_n(cell_owner_.begin() + static_cast<std::ptrdiff_t>(slot.chunk.first_cell), slot.chunk.rows, Index{-1});
    prompt_cells_.give_back(slot.chunk.first_cell, slot.chunk.rows);
    slot.chunk = {};
  }

  // Prompts.

  /// The oldest prompt first, then those that have the fewest tokens left: long prompts do not hold up short ones, nor these
  /// the oldest. @return false where one must wait for pages
  bool start_chunks() {
    if (prompt_cells_.free() == 0) return true;
    waiting_.clear();
    Slot const* oldest = nullptr;
    for (Slot* const slot : by_age_) {
      if (oldest == nullptr && slot->prompt_left() > 0) oldest = slot;
      if (slot->waits_for_cells()) waiting_.push_back(slot);
    }
    std::ranges::stable_sort(waiting_, {}, [oldest](Slot const* slot) { return slot == oldest ? 0 : slot->prompt_left(); });
    bool all = true;
    for (Slot* const slot : waiting_) {
      if (slot->sequence != nullptr) all = start_chunk(*slot) && all;  // none: pre-empted meanwhile
    }
    return all;
  }
  /// Starts the next rows of a prompt, as many as there are cells for; false where it must wait for pages.
  bool start_chunk(Slot& slot) {
    if (!slot.waits_for_cells()) return true;
    auto const [first, cells] = prompt_cells_.take(std::min(setup_.options.prefill_chunk, slot.prompt_left()));
    if (cells == 0) return true;
    while (!lists_.lengthen(slot, entering_bound(slot, slot.fed + cells))) {
      Slot* const victim = by_age_.back();
      if (!nothing_moves() || victim == &slot) {
        prompt_cells_.give_back(first, cells);
        return false;
      }
      preempt(*victim);
    }
    edits_.chunk(slot.number, first, cells, slot.fed, slot.goal - 1);
    std::fill_n(cell_owner_.begin() + static_cast<std::ptrdiff_t>(first), cells, slot.number);
    slot.chunk = {first, cells, cells, tick_, false};
    slot.fed += cells;
    statistics_.prompt_tokens += cells;
    return true;
  }
  /// No row of any request is on its way, so no page will come back by itself.
  [[nodiscard]] bool nothing_moves() const {
    return std::none_of(by_age_.begin(), by_age_.end(), [](Slot const* s) { return s->chunk.rows != 0 || s->decoding(); });
  }

  void admit() {
    if (queue_.empty() || by_age_.size() == slots_.size()) return;
    Admission::Need need;
    for (Slot const* const slot : by_age_) need += admission_.need_of(setup_, lists_.pools(), *slot);
    for (Slot& slot : slots_) {
      if (queue_.empty()) return;
      if (slot.sequence != nullptr) continue;
      if (!fits(*queue_.front(), need)) return;
      auto sequence = std::move(queue_.front());
      queue_.pop_front();
      enter(slot, std::move(sequence));
      if (!start_chunk(slot)) return;
      need += admission_.need_of(setup_, lists_.pools(), slot);
    }
  }

  /// Whether the request fits beside what the others will still need.
  [[nodiscard]] bool fits(Sequence const& sequence, Admission::Need const& others) {
    auto const room = [&](Index more, Index more_ends) {
      return admission_.room_for(setup_, lists_.pools(), others, sequence, more, more_ends);
    };
    if (running() > 0 && !room(lists_.pools().block.only_kept(), lists_.pools().ends.only_kept())) return false;
    while (!room(0, 0) && lists_.drop_oldest_prefix()) {
    }
    return true;
  }

  void enter(Slot& slot, std::unique_ptr<Sequence> sequence) {
    slot.sequence = std::move(sequence);
    by_age_.push_back(&slot);
    auto& guest = *slot.sequence;
    slot.first_tick = tick_;
    slot.fed = slot.reused = 0;
    slot.kept = 0;
    slot.goal = guest.length();
    slot.chunk = {};
    slot.pages.block.assign(static_cast<std::size_t>(setup_.block_lists), {});
    slot.lengths.assign(static_cast<std::size_t>(setup_.shape.recursions), 0);
    guest.depths.clear();
    if (Index const tokens = lists_.reuse_prefix(slot); tokens > 0) {
      slot.fed = slot.reused = tokens;
      ++statistics_.prefix_hits;
      statistics_.prefix_tokens += tokens;
    }
    edits_.guest(slot.number, slot);
  }

  // Reports.

  [[nodiscard]] Slot* owner(Index tick, Index cell) {
    Index const number = cell_owner_[static_cast<std::size_t>(cell)];
    if (number < 0) return nullptr;
    Slot& slot = slots_[static_cast<std::size_t>(number)];
    Index const since = cell < setup_.shape.slots ? slot.first_tick : slot.chunk.first_tick;
    return slot.sequence != nullptr && tick >= since ? &slot : nullptr;
  }

  void row_finished(Index tick, Index cell, Row depth) {
    Slot* const slot = owner(tick, cell);
    if (slot == nullptr) return;
    slot->sequence->depths.push_back(depth);
    ++statistics_.depths[static_cast<std::size_t>(depth)];
    for (Row r = 0; r < depth; ++r) ++slot->lengths[static_cast<std::size_t>(r)];
    admission_.saw(depth);
    if (cell < setup_.shape.slots || --slot->chunk.left > 0) return;
    free_chunk(*slot);
    lists_.keep_prefix(*slot);
  }

  void token_made(Index tick, Index cell, Token token, float log_probability, bool ends) {
    Slot* const slot = owner(tick, cell);
    if (slot == nullptr) return;
    auto& guest = *slot->sequence;
    if (token >= 0) {
      events_.token(guest, token, static_cast<double>(log_probability));
      guest.text.push_back(token);
      ++statistics_.new_tokens;
      admission_.made_token();
    }
    if (!ends) return;
    FinishReason reason = FinishReason::ContextFull;
    if (guest.length() - guest.prompt_tokens() >= guest.request.max_new_tokens) reason = FinishReason::Length;
    if (guest.request.end_token && token == *guest.request.end_token) reason = FinishReason::EndToken;
    if (token < 0) reason = FinishReason::NonFinite;
    if (token >= 0) lists_.keep_prefix(*slot);
    finish(leave(*slot), reason);
  }

  void finish(std::unique_ptr<Sequence> sequence, FinishReason reason) {
    bool const had_slot = !sequence->depths.empty() || sequence->preempted;
    if (had_slot && reason != FinishReason::Length && reason != FinishReason::ContextFull) admission_.ended_early();
    if (sequence->depths_before.size() > sequence->depths.size()) sequence->depths = std::move(sequence->depths_before);
    events_.finished(std::move(sequence), reason);
    ++(reason == FinishReason::Cancelled ? statistics_.cancelled : statistics_.finished);
  }

  [[nodiscard]] TickDemand demand() const {
    TickDemand all;
    for (Slot const* const running : by_age_) {
      Slot const& slot = *running;
      // Its own cell begins when the last row of its prompt has ended: until some row is known to have, one of both counts.
      bool const alone = slot.chunk.left == 0 || slot.chunk.left < slot.chunk.rows;
      Index const decoding = slot.may_decode() && alone ? 1 : 0;
      all.decoding += decoding;
      all.rows_of_text = std::max(all.rows_of_text, decoding + slot.chunk.left);
      all.prompt_rows += slot.chunk.left;
      all.loose_rows += std::max<Index>(0, slot.chunk.left - 1);
      all.entering_prompt += slot.chunk.entered ? 0 : slot.chunk.left;
      all.due_prompt += tick_ >= slot.chunk.first_tick + slot.sequence->most_depth ? slot.chunk.left : 0;
      all.ending_prompts += slot.chunk.rows != 0 && slot.fed == slot.goal ? 1 : 0;
      all.longest = std::max(all.longest, slot.may_decode() ? std::max(tokens_bound(slot), slot.goal) : slot.fed);
    }
    return all;
  }

  PlannerSetup setup_;
  TableEdits edits_;
  SlotLists lists_;
  Admission admission_;
  std::vector<Slot> slots_;
  std::vector<Slot*> by_age_;  // that have a guest, in the order of admission
  std::vector<Slot*> waiting_;
  std::vector<Index> cell_owner_;  // [cells] slot; -1: none
  CellRanges prompt_cells_;
  std::deque<std::unique_ptr<Sequence>> queue_;
  EventLog events_;
  EngineStatistics statistics_;
  RequestId next_id_ = 1;
  Index tick_ = 0, in_flight_ = 0, ticks_ = 1;
  Row calls_ = 0, answered_ = 0;
};

}  // namespace mor::infer
