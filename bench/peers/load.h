// What the benchmark's clients in C++ share: their command line, when calls start, what is recorded, and what is
// written at the end. native.py drives them and describes their output.
//
//   client --address HOST:PORT [--in-flight 256] [--channels 1] [--bytes 64] [--model matmul16] [--reply 64]
//          [--warmup 0.15] [--duration 1] [--timeout 10]
//          [--arrivals closed|fixed|poisson] [--rate 1000] [--phase 0] [--seed 0] [--samples FILE]
//
// Times are in seconds. A client connects, writes {} and waits for a line, which says when all clients begin: a
// time of CLOCK_MONOTONIC. In a closed loop it does so again when it has warmed up: then the measured part begins.
// At last it writes one line of JSON and ends. Closed loop: the next call of a caller starts where its last one ended; calls in flight at the
// end count for the maximum and the errors only. Open loop: calls start when they are due, whatever became of
// those before, and their latency counts from then; those count that are due in the measured part, and as many
// are in flight as there are callers, at most: the others wait, with their clock running, and those that still
// wait at the end are not sent any more; they count with what they have waited.

#ifndef TENSORWIRE_BENCH_LOAD_H
#define TENSORWIRE_BENCH_LOAD_H

#include <sys/prctl.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace load {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string address, model = "matmul16", arrivals = "closed", samples;
  int in_flight = 256, channels = 1;
  int64_t bytes = 64, reply = 0;
  double warmup = 0.15, duration = 1.0, timeout = 10.0, rate = 0.0, phase = 0.0;
  uint64_t seed = 0;

  bool closed() const { return arrivals == "closed"; }
};

[[noreturn]] inline void Fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(2);
}

inline bool SetTime(const std::string& name, const std::string& value, Options* options) {
  const std::map<std::string, double*> times = {
      {"--warmup", &options->warmup},   {"--duration", &options->duration}, {"--rate", &options->rate},
      {"--timeout", &options->timeout}, {"--phase", &options->phase}};
  const auto found = times.find(name);
  if (found == times.end()) return false;
  *found->second = std::atof(value.c_str());
  return true;
}

inline void Check(const Options& options) {
  if (options.address.empty()) Fail("--address is missing");
  if (options.in_flight < 1 || options.channels < 1) Fail("--in-flight and --channels must be positive");
  if (options.bytes < 4 || options.bytes % 4) Fail("--bytes must be a multiple of 4: float32");
  if (options.reply < 1 || options.reply > options.bytes) Fail("--reply must be positive, --bytes at most");
  if (options.warmup < 0 || options.duration <= 0 || options.timeout <= 0) Fail("times must be positive");
  if (options.closed()) return;
  if (options.arrivals != "fixed" && options.arrivals != "poisson") Fail("--arrivals: closed, fixed or poisson");
  if (options.rate <= 0) Fail("--rate must be positive");
}

inline Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) Fail(name + " needs a value");
    const std::string value = argv[i + 1];
    if (name == "--address") options.address = value;
    else if (name == "--model") options.model = value;
    else if (name == "--arrivals") options.arrivals = value;
    else if (name == "--samples") options.samples = value;
    else if (name == "--in-flight") options.in_flight = std::atoi(value.c_str());
    else if (name == "--channels") options.channels = std::atoi(value.c_str());
    else if (name == "--bytes") options.bytes = std::atoll(value.c_str());
    else if (name == "--reply") options.reply = std::atoll(value.c_str());
    else if (name == "--seed") options.seed = std::strtoull(value.c_str(), nullptr, 10);
    else if (!SetTime(name, value, &options)) Fail("unknown option " + name);
  }
  if (options.reply == 0) options.reply = options.bytes;
  Check(options);
  return options;
}

inline std::chrono::nanoseconds Seconds(double seconds) {
  return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

inline double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return double(time.tv_sec) + double(time.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// A float32 row of so many bytes, different for each caller.
inline std::string Payload(const Options& options, int number) {
  std::string payload(static_cast<size_t>(options.bytes), '\0');
  for (size_t i = 0; i < payload.size(); i += 4) payload[i] = static_cast<char>(i + number);
  return payload;
}

enum Phase { kWarmup, kMeasured, kOver };

// When the calls of an open loop are due, between the beginning and the end of a run. Any thread.
class Schedule {
 public:
  Schedule(const Options& options, Clock::time_point begin)
      : options_(options),
        counts_from_(begin + Seconds(options.warmup)),
        end_(counts_from_ + Seconds(options.duration)),
        poisson_(options.arrivals == "poisson"),
        random_(options.seed),
        gap_(options.rate),
        next_(begin) {
    if (poisson_) {
      next_ += Seconds(gap_(random_));
      return;
    }
    // At phase, phase + 1 / rate, ... of the clock: calls of several processes interleave evenly.
    const double now = std::chrono::duration<double>(begin.time_since_epoch()).count();
    number_ = static_cast<int64_t>(std::ceil((now - options.phase) * options.rate));
    next_ = Fixed();
  }

  // The next one; false when the run is over.
  bool Next(Clock::time_point* due) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (next_ >= end_) return false;
    *due = next_;
    if (poisson_) {
      next_ += Seconds(gap_(random_));
    } else {
      ++number_;
      next_ = Fixed();
    }
    return true;
  }

  int PhaseOf(Clock::time_point due) const { return due >= counts_from_ ? kMeasured : kWarmup; }
  Clock::time_point end() const { return end_; }

 private:
  Clock::time_point Fixed() const {
    return Clock::time_point(Seconds(options_.phase + double(number_) / options_.rate));
  }

  const Options& options_;
  const Clock::time_point counts_from_, end_;
  const bool poisson_;
  std::mt19937_64 random_;
  std::exponential_distribution<double> gap_;
  std::mutex mutex_;
  Clock::time_point next_;
  int64_t number_ = 0;
};

// What one caller has seen; only one thread at a time works on it.
struct Recorder {
  std::vector<double> counted, late;
  std::map<std::string, int64_t> errors;
  // answered: rightly, in the measured part, whenever they were due.
  int64_t calls = 0, answered = 0, unsent = 0;

  // phase: of the call. ended: the phase in which it ended. error: empty where it was answered rightly.
  void Add(double seconds, int phase, int ended, const std::string& error) {
    ++calls;
    if (!error.empty()) {
      ++errors[error];
      return;
    }
    if (phase != kWarmup) (phase == kMeasured ? counted : late).push_back(seconds);
    if (ended == kMeasured) ++answered;
  }

  // A call that was due and has waited so long for others to end, when the run was over.
  void AddUnsent(double seconds, int phase) {
    if (phase != kMeasured) return;
    counted.push_back(seconds);
    ++unsent;
  }
};

// The answers of the warm-up are compared to the last byte, later ones by their size.
inline bool Right(const Options& options, const std::string& sent, const std::string& received, int phase) {
  if (received.size() != static_cast<size_t>(options.reply)) return false;
  return phase != kWarmup || sent.compare(0, received.size(), received) == 0;
}

// Says that it has got so far, and waits until all have; when they go on.
inline Clock::time_point Meet() {
  std::printf("{}\n");
  std::fflush(stdout);
  std::string line;
  int c;
  while ((c = std::getchar()) != '\n') {
    // The harness is gone: callers may be busy, and nobody waits for them.
    if (c == EOF) std::_Exit(0);
    line += static_cast<char>(c);
  }
  return Clock::time_point(Seconds(std::atof(line.c_str())));
}

// Says that it is connected, and waits until the load shall begin.
inline Clock::time_point WaitForGo() {
  // Calls of an open loop are to start when they are due, not 50 us later.
  prctl(PR_SET_TIMERSLACK, 1000);
  const auto begin = Meet();
  std::this_thread::sleep_until(begin);
  return begin;
}

// Waits for the end of the warm-up; when the measured part begins. A closed loop is steady when as many calls have
// ended as there are callers; slow ones may prolong its warm-up by three seconds.
inline Clock::time_point WaitForMeasured(const Options& options, Clock::time_point begin,
                                         const std::atomic<int64_t>& ended) {
  const auto warm = begin + Seconds(options.warmup);
  std::this_thread::sleep_until(warm);
  if (!options.closed()) return warm;
  const auto limit = warm + std::chrono::seconds(3);
  while (options.warmup > 0 && ended.load(std::memory_order_relaxed) < options.in_flight && Clock::now() < limit) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  const auto measured = Meet();
  std::this_thread::sleep_until(measured);
  return measured;
}

inline std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return quoted + "\"";
}

inline void Write(const std::string& path, const std::vector<std::vector<double>*>& parts) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file) Fail("cannot write " + path);
  for (const auto* part : parts) {
    if (std::fwrite(part->data(), sizeof(double), part->size(), file) != part->size()) Fail("cannot write " + path);
  }
  if (std::fclose(file)) Fail("cannot write " + path);
}

// cpu: seconds of the measured part, which took so many seconds.
inline void Print(const Options& options, const std::vector<Recorder*>& recorders, double seconds, double cpu) {
  Recorder all;
  for (const auto* recorder : recorders) {
    all.counted.insert(all.counted.end(), recorder->counted.begin(), recorder->counted.end());
    all.late.insert(all.late.end(), recorder->late.begin(), recorder->late.end());
    for (const auto& [what, count] : recorder->errors) all.errors[what] += count;
    all.calls += recorder->calls;
    all.answered += recorder->answered;
    all.unsent += recorder->unsent;
  }
  if (!options.samples.empty()) Write(options.samples, {&all.counted, &all.late});
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("{\"counted\":%zu,\"late\":%zu,\"calls\":%lld,\"seconds\":%.9f,\"cpu_seconds\":%.6f,\"rss\":%lld",
              all.counted.size(), all.late.size(), static_cast<long long>(all.calls), seconds, cpu,
              static_cast<long long>(usage.ru_maxrss) * 1024);
  std::printf(",\"answered\":%lld,\"unsent\":%lld,\"errors\":{", static_cast<long long>(all.answered),
              static_cast<long long>(all.unsent));
  const char* separator = "";
  for (const auto& [what, count] : all.errors) {
    std::printf("%s%s:%lld", separator, Quoted(what).c_str(), static_cast<long long>(count));
    separator = ",";
  }
  std::printf("}}\n");
  std::fflush(stdout);
}

}  // namespace load

#endif
