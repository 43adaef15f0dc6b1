// SPDX-License-Identifier: Apache-2.0
#include "serve/endpoints.hpp"

#include "serve/api_request.hpp"
#include "serve/api_response.hpp"
#include "serve/page.hpp"

#include <memory>
#include <string_view>
#include <thread>
#include <utility>

namespace examples::serve {

namespace {

constexpr char json_type[] = "application/json";

/// For the figures: nobody reads this status.
constexpr int client_has_gone = 499;

/// A generation and the answer that grows from it.
struct Answer {
  Answer(Serving const& serving, ApiRequest request)
      : generation(serving, std::move(request)), response(generation.request(), serving.model) {}

  Generation generation;
  ApiResponse response;
  bool begun = false;
};

void answer_whole(Answer& answer, httplib::Request const& request, httplib::Response& response) {
  auto const poke = [&] { return HttpServer::send_interim_answer(request); };
  for (;;) {
    auto part = answer.generation.next([&] { return HttpServer::client_is_there(poke); });
    if (!part) {  // nobody is left to read this
      HttpServer::hang_up();
      return answer_with(response, ApiError(client_has_gone, "the client has gone"));
    }
    answer.response.add(std::move(part->tokens));
    if (!part->reason) continue;
    return response.set_content(answer.response.body(*part->reason, answer.generation.generated()), json_type);
  }
}

/// A comment among events: clients skip it.
bool send_comment(httplib::DataSink& sink) {
  constexpr std::string_view comment = ":\n\n";
  return sink.write(comment.data(), comment.size());
}

/// Sends what there is next. @returns false where the connection is to be cut
bool send_events(Answer& answer, httplib::DataSink& sink) {
  std::string events;
  if (!std::exchange(answer.begun, true)) events = answer.response.first_event();
  bool last = false;
  try {
    if (events.empty()) {
      auto const poke = [&] { return send_comment(sink); };
      auto part = answer.generation.next([&] { return HttpServer::client_is_there(poke); });
      if (!part) return false;
      answer.response.add(std::move(part->tokens));
      events = answer.response.token_event();
      if (part->reason) {
        events += answer.response.last_events(*part->reason, answer.generation.generated());
        last = true;
      }
    }
  } catch (ApiError const& error) {  // the status has been sent already
    events = ApiResponse::error_event(error);
    last = true;
  }
  if (!events.empty() && !sink.write(events.data(), events.size())) return false;
  if (last) sink.done();
  return true;
}

void answer_in_events(std::shared_ptr<Answer> const& answer, httplib::Request const& request,
                      httplib::Response& response) {
  auto const provide = [answer](std::size_t, httplib::DataSink& sink) { return send_events(*answer, sink); };
  if (request.version == "HTTP/1.0") {  // knows no chunks: the end of the connection is the end of the answer
    HttpServer::close_after_answer();
    response.set_content_provider("text/event-stream", provide);
  } else {
    response.set_chunked_content_provider("text/event-stream", provide);
  }
}

}  // namespace

Service::Service(AnyEngine& engine, mor::io::Tokenizer const& tokenizer, ServedModel model, Limits const& limits,
                 std::string api_key)
    : model_(std::move(model)),
      tokenizer_(tokenizer),
      limits_(limits),
      metrics_(model_.recursions),
      engine_(engine, limits.generations),
      server_(limits, std::move(api_key), [this](std::string const& method, std::string const& path, int status) {
        metrics_.count_answer(method, path, status);
      }) {
  add_pages();
  add_figures();
  add_generation("/v1/completions", false);
  add_generation("/v1/chat/completions", true);
}

void Service::add_pages() {
  auto const add = [this](char const* path, char const* type, std::string content) {
    server_.add({"GET", path, true, [type, content = std::move(content)](auto const&, httplib::Response& response) {
                   response.set_header("Content-Security-Policy", page_policy);
                   response.set_header("Referrer-Policy", "no-referrer");
                   response.set_content(content, type);
                 }});
  };
  add("/", "text/html; charset=utf-8", page_html());
  add("/page.css", "text/css; charset=utf-8", page_css(model_.recursions));
  add("/page.js", "text/javascript; charset=utf-8", page_script());
  add("/icon.svg", "image/svg+xml", page_icon());
}

void Service::add_figures() {
  auto const get = [this](std::string const& path, bool open, auto const& handle) {
    server_.add({"GET", path, open, [handle](auto const&, httplib::Response& response) { handle(response); }});
  };
  get("/health", true, [this](httplib::Response& response) {
    bool const good = !server_.draining() && !engine_.failure();
    response.status = good ? 200 : 503;
    response.set_content(good ? "{\"status\":\"ok\"}\n" : "{\"status\":\"stopping\"}\n", json_type);
  });
  get("/metrics", false, [this](httplib::Response& response) {
    response.set_content(metrics_.text(engine_.inside(), engine_.figures()), "text/plain; version=0.0.4");
  });
  get("/v1/models", false,
      [this](httplib::Response& response) { response.set_content(models_body(model_), json_type); });
  get("/v1/models/" + model_.name, false,
      [this](httplib::Response& response) { response.set_content(model_body(model_), json_type); });
}

void Service::add_generation(std::string const& path, bool chat) {
  server_.add({"POST", path, false, [this, chat](httplib::Request const& request, httplib::Response& response) {
                 complete(request, response, chat);
               }});
}

void Service::complete(httplib::Request const& request, httplib::Response& response, bool chat) {
  Serving const serving{model_, tokenizer_, engine_, metrics_, limits_, hurry_};
  auto const answer = std::make_shared<Answer>(serving, parse_request(request.body, chat, model_, tokenizer_));
  if (answer->generation.request().stream) {
    answer_in_events(answer, request, response);
  } else {
    answer_whole(*answer, request, response);
  }
}

void Service::drain(Seconds time) {
  server_.drain();
  auto const end = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
  auto const wait = [this](Clock::time_point until) {
    while (server_.busy() > 0 && Clock::now() < until && !failure()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  };
  wait(end);
  hurry_ = true;
  wait(Clock::now() + std::chrono::seconds(1));
  server_.stop();
}

}  // namespace examples::serve
