#include "aggregator/metrics_server.h"

#include <charconv>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <httplib.h>

#include "common/base/str.h"

namespace weft {
namespace {

constexpr size_t kThreads = 2;
constexpr time_t kPatience_s = 5;  // of a connection that says or takes nothing
constexpr size_t kRequestBytesMax = 4096;
// A run may have more rounds than belong into memory; of the older ones the sums are kept. Events
// of a round come for a while after it: its evaluation, late updates.
constexpr size_t kRoundsKept = 16;

struct Address {
  std::string host;
  int port = 0;
};

Result<Address> ReadAddress(const std::string& bind) {
  const size_t colon = bind.rfind(':');
  Address address;
  if (colon != std::string::npos && colon > 0) {
    const char* const end = bind.data() + bind.size();
    const auto [stop, error] = std::from_chars(bind.data() + colon + 1, end, address.port);
    if (error == std::errc() && stop == end && address.port >= 0 && address.port <= 65535) {
      address.host = bind.substr(0, colon);
      return address;
    }
  }
  return InvalidArgument(
      Str("[server] metrics-bind: got \"", bind, "\", wanted HOST:PORT, as 127.0.0.1:9464"));
}

}  // namespace

struct MetricsServer::Impl {
  httplib::Server server;
  Address address;
  std::filesystem::path folder;
  std::function<Pulse()> pulse;
  std::mutex mutex;                 // guards the reader and the sums
  std::optional<RunReader> reader;  // once there is a ledger
  RunTotals older;                  // of the rounds that the reader gave up
  std::thread thread;

  void ServeMetrics(httplib::Response& response) {
    const std::scoped_lock lock(mutex);
    if (!reader) {
      if (Result<RunReader> opened = RunReader::Open(folder); opened.ok()) {
        reader.emplace(std::move(*opened));
      }
    }
    if (reader) {
      if (const auto polled = reader->Poll(); !polled.ok()) {
        response.status = 500;
        response.set_content(polled.status().message() + "\n", "text/plain");
        return;
      }
      for (const RoundRow& round : reader->TakeOlder(kRoundsKept)) older.Add(round);
    }
    const RunView none;
    response.set_content(MetricsPage(reader ? reader->view() : none, older, pulse()),
                         "text/plain; version=0.0.4");
  }

  void ServeHealth(httplib::Response& response) const {
    const Status status = Health(pulse());
    response.status = status.ok() ? 200 : 503;
    response.set_content(status.ok() ? "ok\n" : status.message() + "\n", "text/plain");
  }
};

MetricsServer::MetricsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

MetricsServer::~MetricsServer() {
  impl_->server.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

std::string MetricsServer::address() const {
  return Str("http://", impl_->address.host, ":", impl_->address.port);
}

Result<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& bind,
                                                            const std::filesystem::path& run_folder,
                                                            std::function<Pulse()> pulse) {
  auto impl = std::make_unique<Impl>();
  WEFT_TRY_ASSIGN(impl->address, ReadAddress(bind));
  impl->folder = run_folder;
  impl->pulse = std::move(pulse);
  httplib::Server& server = impl->server;
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  // The library's own options let two servers have one port.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  server.set_read_timeout(kPatience_s);
  server.set_write_timeout(kPatience_s);
  server.set_payload_max_length(kRequestBytesMax);
  server.Get("/metrics", [self = impl.get()](const httplib::Request&, httplib::Response& response) {
    self->ServeMetrics(response);
  });
  server.Get("/healthz", [self = impl.get()](const httplib::Request&, httplib::Response& response) {
    self->ServeHealth(response);
  });
  Address& address = impl->address;
  if (address.port == 0) {
    address.port = server.bind_to_any_port(address.host);
    if (address.port < 0) address.port = 0;
  } else if (!server.bind_to_port(address.host, address.port)) {
    return Unavailable(Str("[server] metrics-bind: ", bind, " cannot be bound; is it in use?"));
  }
  if (address.port == 0) {
    return Unavailable(Str("[server] metrics-bind: no port of ", address.host, " can be bound"));
  }
  impl->thread = std::thread([&server] { server.listen_after_bind(); });
  // Who stops it before it runs would wait for ever.
  while (!server.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(impl)));
}

}  // namespace weft
