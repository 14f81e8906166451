// Echo server of KServe v2 ModelInfer: gRPC's C++ callback API and nothing behind it. What it costs is the least
// that a gRPC server of any model costs.
//
//   server [HOST:PORT]     default 127.0.0.1:0, any free port
//
// Writes {"address":"HOST:PORT"} to stdout when it listens, and ends when its stdin closes.
//
// Settings, as gRPC's documentation advises for speed: the callback API, in its own threads; a reactor that
// finishes in the handler, so no thread is changed; no limits on the size of messages; no health service, no
// reflection, no compression, no credentials. SO_REUSEPORT is off so that a port in use is an error.

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "inference.grpc.pb.h"

namespace {

class Echo final : public inference::GRPCInferenceService::CallbackService {
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (request->inputs_size() != 1 || request->raw_input_contents_size() != 1) {
      reactor->Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT,
                                   "expected one input, in raw_input_contents"));
      return reactor;
    }
    const auto& input = request->inputs(0);
    response->set_model_name(request->model_name());
    response->set_model_version("1");
    auto* output = response->add_outputs();
    output->set_name("y");
    output->set_datatype(input.datatype());
    *output->mutable_shape() = input.shape();
    response->add_raw_output_contents(request->raw_input_contents(0));
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

void WaitUntilStdinCloses() {
  char ignored[4096];
  while (read(STDIN_FILENO, ignored, sizeof ignored) > 0) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string bind = argc > 1 ? argv[1] : "127.0.0.1:0";
  Echo service;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort(bind, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) {
    std::fprintf(stderr, "cannot listen on %s\n", bind.c_str());
    return 1;
  }
  const std::string host = bind.substr(0, bind.rfind(':'));
  std::printf("{\"address\":\"%s:%d\"}\n", host.c_str(), port);
  std::fflush(stdout);
  WaitUntilStdinCloses();
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
}
