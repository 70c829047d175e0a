// SPDX-License-Identifier: Apache-2.0
// hawser: the person's command. Asks this node's proxyd what it thinks and what the kernel has. Exit status 0: done and
// agreed; 1: could not ask, or asked wrongly; 2: model and kernel disagree.
#include <cstdio>
#include <functional>

#include <CLI/CLI.hpp>
#include <boost/json/parse.hpp>

#include "cli/address.h"
#include "cli/render.h"
#include "lib/base/log.h"
#include "lib/http/client.h"

namespace {

using namespace hawser;
namespace json = boost::json;

constexpr int kDisagree = 2;

struct Flags {
  std::string server = cli::kDefaultServer;
  bool as_json = false;
  std::string ns, service;
  cli::ExplainArguments explain{.protocol = "tcp"};
  bool udp = false, sctp = false;
};

struct Answer {
  std::string text;
  json::object object;
};

Result<Answer> ask(const std::string& server_text, const std::string& target) {
  auto server = cli::parse_server(server_text);
  if (!server) return propagate(server);
  http::Client client({.host = server->host, .port = server->port, .tls = nullptr});
  http::Request request{.method = "GET", .target = target};
  request.headers.set("Host", server->text());
  auto r = client.send(request);
  if (!r)
    return fail(r.error().code,
                "hawser-proxyd does not answer at {} ({}); is it running on this node? --server names "
                "another address",
                server->text(), r.error().text);
  boost::system::error_code ec;
  auto value = json::parse(r->body, ec);
  const json::object* object = ec ? nullptr : value.if_object();
  if (r->status != 200) {
    const json::value* said = object == nullptr ? nullptr : object->if_contains("error");
    if (said != nullptr && said->is_string()) return fail(r->status, "{}", std::string_view(said->get_string()));
    return fail(r->status, "{} answers {} to {}: not a hawser-proxyd that knows this question", server->text(),
                r->status, target);
  }
  if (object == nullptr)
    return fail(EBADMSG, "{} answers {} with something else than a JSON object", server->text(), target);
  return Answer{std::move(r->body), std::move(value.as_object())};
}

Result<int> run(const Flags& f, const std::string& target, std::string (*render)(const json::object&)) {
  auto answer = ask(f.server, target);
  if (!answer) return propagate(answer);
  const std::string text = f.as_json ? answer->text : render(answer->object);
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    return fail_errno(errno, "write the answer");
  return cli::agrees(answer->object) ? 0 : kDisagree;
}

CLI::App* add_command(CLI::App& app, Flags& f, const char* name, const char* help) {
  auto* c = app.add_subcommand(name, help);
  c->add_flag("--json", f.as_json, "the answer as JSON");
  c->add_option("--server", f.server, "proxyd's --metrics-bind-address")->capture_default_str();
  return c;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Asks this node's hawser-proxyd. Exit status 2: what it wants and what the kernel has differ.",
               "hawser");
  app.set_version_flag("--version", "hawser " HAWSER_VERSION);
  app.require_subcommand(1);
  Flags f;
  auto* services = add_command(app, f, "services", "Services and their frontends, each compared with the kernel");
  services->add_option("-n,--namespace", f.ns, "only of this namespace");
  auto* endpoints = add_command(app, f, "endpoints", "endpoints of a Service, and why each is used or not");
  endpoints->add_option("SERVICE", f.service, "NAME or NAMESPACE/NAME")->required();
  endpoints->add_option("-n,--namespace", f.ns, "namespace of NAME; default: default");
  auto* explain = add_command(app, f, "explain", "where a new connection goes from here, step by step");
  explain->add_option("SOURCE", f.explain.source, "the client's address")->required();
  explain->add_option("DESTINATION", f.explain.destination, "ADDRESS:PORT, [IPV6]:PORT or SERVICE:PORT")->required();
  explain->add_option("-n,--namespace", f.explain.ns, "namespace of SERVICE; default: default");
  explain->add_option("--interface", f.explain.interface, "it comes in through; for detectLocalMode by interface");
  explain->add_flag("--udp", f.udp, "UDP instead of TCP");
  explain->add_flag("--sctp", f.sctp, "SCTP instead of TCP")->excludes("--udp");
  auto* status = add_command(app, f, "status", "whether the kernel as a whole is as proxyd wants it");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 1;
  }
  log::init("hawser", log::Level::kWarn);
  if (f.udp) f.explain.protocol = "udp";
  if (f.sctp) f.explain.protocol = "sctp";
  Result<int> r = fail(EINVAL, "no command");
  if (*services) r = run(f, cli::services_target(f.ns), cli::render_services);
  if (*endpoints) r = run(f, cli::endpoints_target(f.ns, f.service), cli::render_endpoints);
  if (*explain) r = run(f, cli::explain_target(f.explain), cli::render_explain);
  if (*status) r = run(f, "/inspect/status", cli::render_status);
  if (!r) {
    std::fprintf(stderr, "hawser: %s\n", r.error().text.c_str());
    return 1;
  }
  return *r;
}
