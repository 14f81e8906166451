// Load on KServe v2 ModelInfer through gRPC's C++ callback API, as load.h describes it: callers are spread over
// the channels, and each makes its next call from the callback of its last one.
//
// Settings: no limits on the size of messages; each channel has a connection of its own; requests are built
// once and sent again and again, contexts are new for each call, as gRPC demands. The channel argument
// GRPC_ARG_OPTIMIZATION_TARGET=throughput, at both ends, made no difference that rounds in turn could show.

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <optional>
#include <thread>

#include "../load.h"
#include "inference.grpc.pb.h"

namespace {

using load::Clock;

class Caller;

// What all callers share; each reads the phase once a call, when it has its answer.
class Run {
 public:
  explicit Run(const load::Options& options) : options(options) {}

  // A caller has nothing to do.
  void GiveBack(Caller* caller) {
    // Under the lock: else the run could be gone before the notification.
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(caller);
    changed_.notify_one();
  }

  // One that has nothing to do; waits for it, until then. Null: there is none.
  Caller* Take(Clock::time_point until) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!changed_.wait_until(lock, until, [this] { return !idle_.empty(); })) return nullptr;
    Caller* caller = idle_.back();
    idle_.pop_back();
    return caller;
  }

  void WaitForAll() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return idle_.size() == static_cast<size_t>(options.in_flight); });
  }

  const load::Options& options;
  std::atomic<int> phase{load::kWarmup};
  // Calls of the warm-up.
  std::atomic<int64_t> ended{0};

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Caller*> idle_;
};

// At most one call in flight. Only one thread at a time works on a caller.
class Caller {
 public:
  Caller(Run* run, inference::GRPCInferenceService::Stub* stub, int number) : run_(run), stub_(stub) {
    request_.set_model_name(run->options.model);
    auto* input = request_.add_inputs();
    input->set_name("x");
    input->set_datatype("FP32");
    input->add_shape(1);
    input->add_shape(run->options.bytes / 4);
    request_.add_raw_input_contents(load::Payload(run->options, number));
    run->GiveBack(this);
  }

  // due: what the latency counts from. phase: of a call of an open loop, known from when it is due.
  void Call(Clock::time_point due, int phase) {
    context_.emplace();
    // A deadline on the wall clock, as gRPC wants it.
    context_->set_deadline(std::chrono::system_clock::now() + load::Seconds(run_->options.timeout));
    response_.Clear();
    due_ = due;
    phase_ = phase;
    stub_->async()->ModelInfer(&*context_, &request_, &response_,
                               [this](const grpc::Status& status) { Ended(status); });
  }

  load::Recorder recorder;

 private:
  void Ended(const grpc::Status& status) {
    const auto now = Clock::now();
    const bool closed = run_->options.closed();
    const int phase = closed ? run_->phase.load(std::memory_order_relaxed) : phase_;
    std::string error;
    if (!status.ok()) {
      error = std::to_string(status.error_code()) + ": " + status.error_message();
    } else if (response_.raw_output_contents_size() != 1 ||
               !load::Right(run_->options, request_.raw_input_contents(0), response_.raw_output_contents(0), phase)) {
      error = "wrong answer";
    }
    if (phase == load::kWarmup) run_->ended.fetch_add(1, std::memory_order_relaxed);
    const int ended = closed ? phase : run_->phase.load(std::memory_order_relaxed);
    recorder.Add(std::chrono::duration<double>(now - due_).count(), phase, ended, error);
    if (closed && phase != load::kOver) {
      Call(Clock::now(), phase);
    } else {
      run_->GiveBack(this);
    }
  }

  Run* run_;
  inference::GRPCInferenceService::Stub* stub_;
  inference::ModelInferRequest request_;
  inference::ModelInferResponse response_;
  std::optional<grpc::ClientContext> context_;
  Clock::time_point due_;
  int phase_ = load::kWarmup;
};

std::shared_ptr<grpc::Channel> Connect(const load::Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // Without a pool of its own every channel would share one connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel =
      grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + load::Seconds(options.timeout))) {
    load::Fail("cannot connect to " + options.address);
  }
  return channel;
}

// Starts calls when they are due, until the end.
void Open(Run* run, Clock::time_point begin, load::Recorder* unsent) {
  load::Schedule schedule(run->options, begin);
  Clock::time_point due;
  while (schedule.Next(&due)) {
    std::this_thread::sleep_until(due);
    if (Caller* caller = run->Take(schedule.end())) {
      caller->Call(due, schedule.PhaseOf(due));
    } else {
      unsent->AddUnsent(std::chrono::duration<double>(schedule.end() - due).count(), schedule.PhaseOf(due));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const load::Options options = load::Parse(argc, argv);
  std::vector<std::unique_ptr<inference::GRPCInferenceService::Stub>> stubs;
  for (int i = 0; i < options.channels; ++i) {
    stubs.push_back(inference::GRPCInferenceService::NewStub(Connect(options)));
  }
  Run run(options);
  std::vector<std::unique_ptr<Caller>> callers;
  for (int i = 0; i < options.in_flight; ++i) {
    callers.push_back(std::make_unique<Caller>(&run, stubs[i % stubs.size()].get(), i));
  }
  const auto begin = load::WaitForGo();
  std::optional<std::thread> dispatcher;
  load::Recorder unsent;
  if (options.closed()) {
    for (int i = 0; i < options.in_flight; ++i) run.Take(Clock::now())->Call(Clock::now(), load::kWarmup);
  } else {
    dispatcher.emplace(Open, &run, begin, &unsent);
  }
  const auto measured = load::WaitForMeasured(options, begin, run.ended);
  const double cpu = load::CpuSeconds();
  const auto started = Clock::now();
  run.phase = load::kMeasured;
  std::this_thread::sleep_until(measured + load::Seconds(options.duration));
  run.phase = load::kOver;
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  const double used = load::CpuSeconds() - cpu;
  if (dispatcher) dispatcher->join();
  run.WaitForAll();
  std::vector<load::Recorder*> recorders = {&unsent};
  for (const auto& caller : callers) recorders.push_back(&caller->recorder);
  load::Print(options, recorders, options.closed() ? seconds : options.duration, used);
}
