// SPDX-License-Identifier: Apache-2.0
// hawser-lab-init FILE READY: the first process of a lab host. Starts the services that FILE lists, restarts those that
// end (100 ms, doubling to 5 s; back to 100 ms after 10 s of life), reaps orphans, and reads FILE again on SIGHUP: new
// services start, missing ones are ended, and one whose entry changed is restarted. It makes the file READY once
// signals are safe to send. It ends on SIGTERM; as PID 1 of its namespace it takes everything with it.
//
// FILE: {"services": [{"name": "proxyd", "argv": ["/path", "--flag"], "log": "/path.log", "env": {"K": "V"},
//                      "listen": ["0.0.0.0:6443"], "fds": [7]}]}
// `listen`: sockets made once, here, and handed to every start of the service by the LISTEN_FDS convention, so that
// clients wait in the backlog while it restarts instead of being refused. `fds`: inherited sockets that are handed on
// likewise, after those.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <boost/json/value_to.hpp>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/unique_fd.h"

namespace json = boost::json;
using namespace hawser;
using namespace std::chrono_literals;

namespace {

constexpr Nanos kFirstDelay = 100ms, kLongestDelay = 5s, kHealthyAfter = 10s;

struct Service {
  std::string entry;  // its JSON text: changed = restart
  std::string name, log;
  std::vector<std::string> argv;
  std::vector<std::pair<std::string, std::string>> env;
  std::vector<UniqueFd> sockets;
  std::vector<int> inherited;
  pid_t pid = 0;
  Nanos delay = kFirstDelay;
  MonoTime started{}, due{};
  bool removed = false;
};

Result<UniqueFd> listen_on(const std::string& where) {
  auto colon = where.rfind(':');
  sockaddr_in a{};
  a.sin_family = AF_INET;
  if (colon == where.npos || inet_pton(AF_INET, where.substr(0, colon).c_str(), &a.sin_addr) != 1)
    return fail(EINVAL, "listen \"{}\": want IPv4:PORT", where);
  a.sin_port = htons(static_cast<uint16_t>(atoi(where.c_str() + colon + 1)));
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  int on = 1;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) || listen(fd.get(), 1024))
    return fail_errno(errno, "listen on {}", where);
  return fd;
}

Result<Service> parse_service(const json::object& o) {
  Service s;
  s.entry = json::serialize(o);
  s.name = json::value_to<std::string>(o.at("name"));
  s.log = json::value_to<std::string>(o.at("log"));
  s.argv = json::value_to<std::vector<std::string>>(o.at("argv"));
  if (auto* env = o.if_contains("env"))
    for (auto& kv : env->as_object()) s.env.emplace_back(kv.key(), json::value_to<std::string>(kv.value()));
  if (auto* l = o.if_contains("listen"))
    for (auto& where : l->as_array()) {
      auto fd = listen_on(json::value_to<std::string>(where));
      if (!fd) return propagate(fd, "service {}", s.name);
      s.sockets.push_back(std::move(*fd));
    }
  if (auto* f = o.if_contains("fds")) s.inherited = json::value_to<std::vector<int>>(*f);
  return s;
}

Result<std::vector<json::object>> read_entries(const char* path) {
  std::ifstream f(path);
  std::stringstream text;
  text << f.rdbuf();
  if (!f) return fail(EIO, "read {}", path);
  try {
    std::vector<json::object> out;
    const json::value document = json::parse(text.str());
    for (auto& v : document.as_object().at("services").as_array()) out.push_back(v.as_object());
    return out;
  } catch (const std::exception& e) {
    return fail(EINVAL, "{}: {}", path, e.what());
  }
}

// In the child, after fork: never returns.
[[noreturn]] void run(const Service& s) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setsid();
  int log = open(s.log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), null = open("/dev/null", O_RDONLY);
  dup2(null, 0);
  dup2(log, 1);
  dup2(log, 2);
  for (auto& [k, v] : s.env) setenv(k.c_str(), v.c_str(), 1);
  std::vector<int> fds;
  for (auto& f : s.sockets) fds.push_back(f.get());
  fds.insert(fds.end(), s.inherited.begin(), s.inherited.end());
  // Lift them above the target range first, so that no dup2 overwrites one still needed.
  for (int& fd : fds) fd = fcntl(fd, F_DUPFD_CLOEXEC, 100);
  for (size_t i = 0; i < fds.size(); i++) dup2(fds[i], 3 + static_cast<int>(i));
  if (!fds.empty()) {
    setenv("LISTEN_FDS", std::to_string(fds.size()).c_str(), 1);
    setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
  }
  std::vector<char*> argv;
  for (auto& a : s.argv) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  dprintf(2, "exec %s: %s\n", argv[0], strerror(errno));
  _exit(127);
}

class Supervisor {
 public:
  explicit Supervisor(const char* path) : path_(path) {}

  void load() {
    auto entries = read_entries(path_);
    if (!entries) return log::error("{}", entries.error().text);
    for (auto& [name, s] : services_) s.removed = true;
    for (auto& o : *entries) load_one(o);
    for (auto& [name, s] : services_)
      if (s.removed && s.pid) kill(s.pid, SIGTERM);
    std::erase_if(services_, [](auto& kv) { return kv.second.removed && !kv.second.pid; });
    start_due();
  }

  void reap() {
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      for (auto& [name, s] : services_)
        if (s.pid == pid) ended(s, status);
    }
    std::erase_if(services_, [](auto& kv) { return kv.second.removed && !kv.second.pid; });
  }

  void start_due() {
    auto now = system_clock().now();
    for (auto& [name, s] : services_) {
      if (s.pid || s.removed || s.due > now) continue;
      s.started = now;
      s.pid = fork();
      if (s.pid == 0) run(s);
      if (s.pid < 0) s.pid = 0, s.due = now + s.delay;
    }
  }

  // Milliseconds until the next start is due; -1 if none is.
  int timeout_ms() const {
    auto now = system_clock().now();
    int best = -1;
    for (auto& [name, s] : services_) {
      if (s.pid || s.removed) continue;
      int ms = static_cast<int>(std::max<std::int64_t>(0, (s.due - now) / 1ms)) + 1;
      if (best < 0 || ms < best) best = ms;
    }
    return best;
  }

 private:
  void load_one(const json::object& o) {
    auto name = json::value_to<std::string>(o.at("name"));
    auto it = services_.find(name);
    if (it != services_.end() && it->second.entry == json::serialize(o)) {
      it->second.removed = false;
      return;
    }
    pid_t old = 0;
    if (it != services_.end()) {
      old = it->second.pid;
      if (old) kill(old, SIGTERM);
      services_.erase(it);
    }
    auto s = parse_service(o);
    if (!s) return log::error("{}", s.error().text);
    s->pid = old;  // the new entry starts when the old process has ended
    services_.emplace(name, std::move(*s));
  }

  void ended(Service& s, int status) {
    auto now = system_clock().now();
    s.pid = 0;
    if (now - s.started > kHealthyAfter) s.delay = kFirstDelay;
    s.due = now + s.delay;
    s.delay = std::min(s.delay * 2, kLongestDelay);
    log::warn("{} ended ({} {}), restart in {} ms", s.name, WIFSIGNALED(status) ? "signal" : "status",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), (s.due - now) / 1ms);
  }

  const char* path_;
  std::map<std::string, Service> services_;
};

}  // namespace

int main(int argc, char** argv) {
  log::init("lab-init", log::Level::kInfo);
  if (argc != 3) {
    fprintf(stderr, "usage: hawser-lab-init FILE READY\n");
    return 2;
  }
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGCHLD, SIGHUP, SIGTERM, SIGINT}) sigaddset(&set, s);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  UniqueFd signals(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  Supervisor supervisor(argv[1]);
  supervisor.load();
  UniqueFd(open(argv[2], O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  for (;;) {
    pollfd p{signals.get(), POLLIN, 0};
    poll(&p, 1, supervisor.timeout_ms());
    for (signalfd_siginfo i; read(signals.get(), &i, sizeof i) == sizeof i;) {
      if (i.ssi_signo == SIGTERM || i.ssi_signo == SIGINT) return 0;
      if (i.ssi_signo == SIGHUP) supervisor.load();
    }
    supervisor.reap();
    supervisor.start_due();
  }
}
