// Closed-loop load on KServe v2 ModelInfer through gRPC's C++ callback API: so many calls in flight, each
// followed by the next from its own callback, spread over so many connections.
//
//   client --address HOST:PORT [--in-flight 256] [--channels 1] [--bytes 64]
//          [--warmup 0.15] [--duration 1] [--timeout 10]
//
// Times are in seconds. Writes one JSON line when it has measured, as peer.py describes it, and ends. The
// warm-up does not count. Percentiles are observed values; calls in flight at the end count for the maximum
// and the errors only, as in the benchmark's own load generator.
//
// Settings: no limits on the size of messages; each channel has a connection of its own; requests are built
// once and sent again and again, contexts are new for each call, as gRPC demands. The channel argument
// GRPC_ARG_OPTIMIZATION_TARGET=throughput, at both ends, made no difference that rounds in turn could show.

#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "inference.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string address;
  int in_flight = 256;
  int channels = 1;
  int64_t bytes = 64;
  double warmup = 0.15;
  double duration = 1.0;
  double timeout = 10.0;
};

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(2);
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) Fail(name + " needs a value");
    const std::string value = argv[i + 1];
    if (name == "--address") options.address = value;
    else if (name == "--in-flight") options.in_flight = std::atoi(value.c_str());
    else if (name == "--channels") options.channels = std::atoi(value.c_str());
    else if (name == "--bytes") options.bytes = std::atoll(value.c_str());
    else if (name == "--warmup") options.warmup = std::atof(value.c_str());
    else if (name == "--duration") options.duration = std::atof(value.c_str());
    else if (name == "--timeout") options.timeout = std::atof(value.c_str());
    else Fail("unknown option " + name);
  }
  if (options.address.empty()) Fail("--address is missing");
  if (options.in_flight < 1 || options.channels < 1) Fail("--in-flight and --channels must be positive");
  if (options.bytes < 4 || options.bytes % 4) Fail("--bytes must be a multiple of 4: float32");
  if (options.warmup < 0 || options.duration <= 0 || options.timeout <= 0) Fail("times must be positive");
  return options;
}

std::chrono::nanoseconds Seconds(double seconds) {
  return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return double(time.tv_sec) + double(time.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

enum Phase { kWarmup, kMeasured, kOver };

// What all callers share; each reads the phase once a call, when it has its answer.
class Run {
 public:
  explicit Run(const Options& options) : options(options), active_(options.in_flight) {}

  void CallerEnded() {
    // Under the lock: else Wait() could return, and the run be gone, before the notification.
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--active_ == 0) ended_.notify_all();
  }

  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, [this] { return active_ == 0; });
  }

  const Options& options;
  std::atomic<int> phase{kWarmup};

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  int active_;
};

// One call in flight, over and over. Only one thread at a time works on a caller.
class Caller {
 public:
  Caller(Run* run, inference::GRPCInferenceService::Stub* stub, int number) : run_(run), stub_(stub) {
    const Options& options = run->options;
    request_.set_model_name("matmul16");
    auto* input = request_.add_inputs();
    input->set_name("x");
    input->set_datatype("FP32");
    input->add_shape(1);
    input->add_shape(options.bytes / 4);
    std::string payload(static_cast<size_t>(options.bytes), '\0');
    for (size_t i = 0; i < payload.size(); i += 4) payload[i] = static_cast<char>(i + number);
    request_.add_raw_input_contents(std::move(payload));
  }

  void Call() {
    context_.emplace();
    // A deadline on the wall clock, as gRPC wants it.
    context_->set_deadline(std::chrono::system_clock::now() + Seconds(run_->options.timeout));
    response_.Clear();
    started_ = Clock::now();
    stub_->async()->ModelInfer(&*context_, &request_, &response_,
                               [this](const grpc::Status& status) { Ended(status); });
  }

  std::vector<double> counted, late;
  std::map<std::string, int64_t> errors;
  int64_t calls = 0;

 private:
  void Ended(const grpc::Status& status) {
    const double seconds = std::chrono::duration<double>(Clock::now() - started_).count();
    const int phase = run_->phase.load(std::memory_order_relaxed);
    // The answers of the warm-up are compared to the last byte, later ones by their size.
    ++calls;
    if (!status.ok()) {
      ++errors[std::to_string(status.error_code()) + ": " + status.error_message()];
    } else if (!Right(phase)) {
      ++errors["wrong answer"];
    } else if (phase != kWarmup) {
      (phase == kMeasured ? counted : late).push_back(seconds);
    }
    if (phase == kOver) {
      run_->CallerEnded();
    } else {
      Call();
    }
  }

  bool Right(int phase) const {
    if (response_.raw_output_contents_size() != 1) return false;
    const std::string& sent = request_.raw_input_contents(0);
    const std::string& received = response_.raw_output_contents(0);
    return phase == kWarmup ? received == sent : received.size() == sent.size();
  }

  Run* run_;
  inference::GRPCInferenceService::Stub* stub_;
  inference::ModelInferRequest request_;
  inference::ModelInferResponse response_;
  std::optional<grpc::ClientContext> context_;
  Clock::time_point started_;
};

// An observed value, never interpolated: the first that is not below the level.
double Percentile(const std::vector<double>& sorted, double level) {
  if (sorted.empty()) return 0.0;
  return sorted[static_cast<size_t>(std::ceil(level * double(sorted.size() - 1)))];
}

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return quoted + "\"";
}

// cpu: seconds of the measured part.
void Print(const std::vector<std::unique_ptr<Caller>>& callers, double seconds, double cpu) {
  std::vector<double> counted;
  std::map<std::string, int64_t> errors;
  int64_t calls = 0;
  double largest = 0.0;
  for (const auto& caller : callers) {
    counted.insert(counted.end(), caller->counted.begin(), caller->counted.end());
    for (const double late : caller->late) largest = std::max(largest, late);
    for (const auto& [what, count] : caller->errors) errors[what] += count;
    calls += caller->calls;
  }
  std::sort(counted.begin(), counted.end());
  if (!counted.empty()) largest = std::max(largest, counted.back());
  std::printf("{\"calls\":%zu,\"all_calls\":%lld,\"seconds\":%.9f,\"cpu_seconds\":%.6f,\"all_cpu_seconds\":%.6f",
              counted.size(), static_cast<long long>(calls), seconds, cpu, CpuSeconds());
  std::printf(",\"p50\":%.9f,\"p90\":%.9f,\"p99\":%.9f,\"p999\":%.9f,\"max\":%.9f,\"errors\":{",
              Percentile(counted, 0.5), Percentile(counted, 0.9), Percentile(counted, 0.99),
              Percentile(counted, 0.999), largest);
  const char* separator = "";
  for (const auto& [what, count] : errors) {
    std::printf("%s%s:%lld", separator, Quoted(what).c_str(), static_cast<long long>(count));
    separator = ",";
  }
  std::printf("}}\n");
}

std::shared_ptr<grpc::Channel> Connect(const Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // Without a pool of its own every channel would share one connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel =
      grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments);
  if (!channel->WaitForConnected(std::chrono::system_clock::now() + Seconds(options.timeout))) {
    Fail("cannot connect to " + options.address);
  }
  return channel;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  std::vector<std::unique_ptr<inference::GRPCInferenceService::Stub>> stubs;
  for (int i = 0; i < options.channels; ++i) {
    stubs.push_back(inference::GRPCInferenceService::NewStub(Connect(options)));
  }
  Run run(options);
  std::vector<std::unique_ptr<Caller>> callers;
  for (int i = 0; i < options.in_flight; ++i) {
    callers.push_back(std::make_unique<Caller>(&run, stubs[i % stubs.size()].get(), i));
  }
  for (const auto& caller : callers) caller->Call();
  std::this_thread::sleep_for(Seconds(options.warmup));
  const double cpu = CpuSeconds();
  const auto started = Clock::now();
  run.phase = kMeasured;
  std::this_thread::sleep_for(Seconds(options.duration));
  run.phase = kOver;
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  const double used = CpuSeconds() - cpu;
  run.Wait();
  Print(callers, seconds, used);
}
