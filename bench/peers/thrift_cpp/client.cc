// Load on inference.thrift, as load.h describes it: Thrift has one call at a time on a connection, so each caller
// has a connection and a thread of its own. --channels is not used.
//
// Settings: framed, the binary protocol, TCP_NODELAY; requests are built once and sent again and again.

#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include <memory>
#include <thread>

#include "../load.h"
#include "Inference.h"

namespace {

using load::Clock;
using Protocol = apache::thrift::protocol::TBinaryProtocol;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TSocket;
using apache::thrift::transport::TTransportException;

// As many bytes as the server lets a frame have.
constexpr int kMaxFrame = 1 << 28;

double SecondsSince(Clock::time_point then, Clock::time_point now = Clock::now()) {
  return std::chrono::duration<double>(now - then).count();
}

class Caller {
 public:
  // ended: calls of the warm-up, of all callers.
  Caller(const load::Options& options, const std::atomic<int>* phase, std::atomic<int64_t>* ended, int number)
      : options_(options), phase_(phase), ended_(ended) {
    request_.model_name = options.model;
    request_.inputs.resize(1);
    Tensor& input = request_.inputs[0];
    input.name = "x";
    input.datatype = "FP32";
    input.shape = {1, options.bytes / 4};
    input.content = load::Payload(options, number);
    Connect();
  }

  void Closed() {
    auto started = Clock::now();
    int phase = load::kWarmup;
    while (phase != load::kOver) {
      const std::string error = Call();
      const auto ended = Clock::now();
      phase = phase_->load(std::memory_order_relaxed);
      if (phase == load::kWarmup) ended_->fetch_add(1, std::memory_order_relaxed);
      recorder.Add(SecondsSince(started, ended), phase, phase, error);
      started = ended;
    }
  }

  void Open(load::Schedule* schedule) {
    Clock::time_point due;
    while (schedule->Next(&due)) {
      std::this_thread::sleep_until(due);
      const int phase = schedule->PhaseOf(due);
      if (phase_->load(std::memory_order_relaxed) == load::kOver) {
        recorder.AddUnsent(SecondsSince(due, schedule->end()), phase);
        continue;
      }
      const std::string error = Call();
      recorder.Add(SecondsSince(due), phase, phase_->load(std::memory_order_relaxed), error);
    }
  }

  load::Recorder recorder;

 private:
  void Connect() {
    const size_t colon = options_.address.rfind(':');
    const auto config = std::make_shared<apache::thrift::TConfiguration>(kMaxFrame, kMaxFrame);
    socket_ = std::make_shared<TSocket>(options_.address.substr(0, colon),
                                        std::stoi(options_.address.substr(colon + 1)), config);
    const int milliseconds = std::max(1, static_cast<int>(options_.timeout * 1000));
    socket_->setConnTimeout(milliseconds);
    socket_->setRecvTimeout(milliseconds);
    socket_->setSendTimeout(milliseconds);
    socket_->open();
    client_ = std::make_unique<InferenceClient>(
        std::make_shared<Protocol>(std::make_shared<TFramedTransport>(socket_, config)));
  }

  // Empty, or what went wrong: one of gRPC's codes and a message.
  std::string Call() {
    try {
      InferResponse response;
      client_->infer(response, request_);
      const int phase = phase_->load(std::memory_order_relaxed);
      if (response.outputs.size() != 1 ||
          !load::Right(options_, request_.inputs[0].content, response.outputs[0].content, phase)) {
        return "wrong answer";
      }
      return {};
    } catch (const InferError& error) {
      return std::to_string(error.code) + ": " + error.message;
    } catch (const TTransportException& error) {
      return (error.getType() == TTransportException::TIMED_OUT ? "4: " : "14: ") + Again(error.what());
    }
  }

  // The answer may still come, and is not that of the next call: that has a new connection.
  std::string Again(const std::string& why) {
    try {
      socket_->close();
      Connect();
    } catch (const TTransportException& error) {
      return why + "; " + error.what();
    }
    return why;
  }

  const load::Options& options_;
  const std::atomic<int>* phase_;
  std::atomic<int64_t>* ended_;
  InferRequest request_;
  std::shared_ptr<TSocket> socket_;
  std::unique_ptr<InferenceClient> client_;
};

}  // namespace

int main(int argc, char** argv) {
  const load::Options options = load::Parse(argc, argv);
  std::atomic<int> phase{load::kWarmup};
  std::atomic<int64_t> ended{0};
  std::vector<std::unique_ptr<Caller>> callers;
  try {
    for (int i = 0; i < options.in_flight; ++i) {
      callers.push_back(std::make_unique<Caller>(options, &phase, &ended, i));
    }
  } catch (const TTransportException& error) {
    load::Fail("cannot connect to " + options.address + ": " + error.what());
  }
  const auto begin = load::WaitForGo();
  load::Schedule schedule(options, begin);
  std::vector<std::thread> threads;
  for (const auto& caller : callers) {
    threads.emplace_back([&options, &schedule, caller = caller.get()] {
      options.closed() ? caller->Closed() : caller->Open(&schedule);
    });
  }
  const auto measured = load::WaitForMeasured(options, begin, ended);
  const double cpu = load::CpuSeconds();
  const auto started = Clock::now();
  phase = load::kMeasured;
  std::this_thread::sleep_until(measured + load::Seconds(options.duration));
  phase = load::kOver;
  const double seconds = SecondsSince(started);
  const double used = load::CpuSeconds() - cpu;
  for (auto& thread : threads) thread.join();
  std::vector<load::Recorder*> recorders;
  for (const auto& caller : callers) recorders.push_back(&caller->recorder);
  load::Print(options, recorders, options.closed() ? seconds : options.duration, used);
}
