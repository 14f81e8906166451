// Echo server of inference.thrift: Thrift's TNonblockingServer and nothing behind it. What it costs is the least
// that such a server of any model costs.
//
//   server
//
// Writes {"address":"127.0.0.1:PORT"} to stdout when it listens, and ends when its stdin closes.
//
// Settings: framed, the binary protocol; an I/O thread for each core, which calls the handler itself, so no thread
// is changed; no limit on the size of frames that the benchmark's requests reach.

#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/server/TNonblockingServer.h>
#include <thrift/transport/TNonblockingServerSocket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>

#include "Inference.h"

namespace {

namespace protocol = apache::thrift::protocol;
namespace server = apache::thrift::server;
namespace transport = apache::thrift::transport;

// The model of this name gives the first bytes of its input, any other one all of it.
constexpr char kHead[] = "head";
constexpr size_t kHeadBytes = 16;
constexpr int32_t kInvalidArgument = 3;
constexpr size_t kMaxFrame = 1 << 28;

class Echo final : public InferenceIf {
  void infer(InferResponse& response, const InferRequest& request) override {
    if (request.inputs.size() != 1) {
      InferError error;
      error.code = kInvalidArgument;
      error.message = "expected one input";
      throw error;
    }
    const Tensor& input = request.inputs[0];
    response.model_name = request.model_name;
    response.model_version = "1";
    response.outputs.resize(1);
    Tensor& output = response.outputs[0];
    output.name = "y";
    output.datatype = input.datatype;
    if (request.model_name == kHead) {
      output.shape = {1, kHeadBytes / 4};
      output.content = input.content.substr(0, kHeadBytes);
    } else {
      output.shape = input.shape;
      output.content = input.content;
    }
  }
};

// Says where it listens, when it does.
class Announcer final : public server::TServerEventHandler {
 public:
  explicit Announcer(server::TNonblockingServer* server) : server_(server) {}

  void preServe() override {
    std::printf("{\"address\":\"127.0.0.1:%d\"}\n", server_->getListenPort());
    std::fflush(stdout);
  }

 private:
  server::TNonblockingServer* server_;
};

// Ends the process when stdin closes: stop() is lost where it comes before the loops have begun.
void EndWithStdin() {
  char ignored[4096];
  while (read(STDIN_FILENO, ignored, sizeof ignored) > 0) {
  }
  _exit(0);
}

}  // namespace

int main() {
  const auto processor = std::make_shared<InferenceProcessor>(std::make_shared<Echo>());
  const auto socket = std::make_shared<transport::TNonblockingServerSocket>("127.0.0.1", 0);
  server::TNonblockingServer server(processor, std::make_shared<protocol::TBinaryProtocolFactory>(), socket);
  server.setNumIOThreads(std::max(1u, std::thread::hardware_concurrency()));
  server.setMaxFrameSize(kMaxFrame);
  server.setServerEventHandler(std::make_shared<Announcer>(&server));
  std::thread(EndWithStdin).detach();
  server.serve();
}
