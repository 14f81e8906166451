// The echo of echo.h with gRPC's C++ callback API.
//
// Settings, as gRPC's documentation advises for speed: the callback API, in its own threads; a reactor that
// finishes in the handler, so no thread is changed.

#include "echo.h"

#include <memory>

namespace {

class Echo final : public inference::GRPCInferenceService::CallbackService {
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(Answer(*request, response));
    return reactor;
  }
};

}  // namespace

int main(int argc, char** argv) {
  const std::string bind = argc > 1 ? argv[1] : "127.0.0.1:0";
  Echo service;
  int port = 0;
  grpc::ServerBuilder builder;
  Configure(&builder, bind, &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) return CannotListen(bind);
  Announce(bind, port);
  server->Shutdown(Soon());
}
