// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/delegate.h"

#include <array>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/unique_fd.h"

extern char** environ;

namespace hawser::cni {
namespace {

namespace json = boost::json;
constexpr std::size_t kMaxOutputBytes = 4u << 20;

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

Result<Pipe> make_pipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

std::string find_binary(const DelegateCall& call) {
  for (const auto& folder : call.path) {
    auto candidate = folder + "/" + call.type;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return {};
}

std::vector<std::string> environment_with(const std::string& command) {
  std::vector<std::string> env;
  for (char** e = environ; *e; e++) {
    if (!std::string_view(*e).starts_with("CNI_COMMAND=")) env.emplace_back(*e);
  }
  env.push_back("CNI_COMMAND=" + command);
  return env;
}

Result<pid_t> spawn(const std::string& binary, const std::string& command, int in, int out) {
  auto env = environment_with(command);
  std::vector<char*> envp;
  for (auto& e : env) envp.push_back(e.data());
  envp.push_back(nullptr);
  std::string argv0 = binary;
  std::array<char*, 2> argv{argv0.data(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  pid_t pid = -1;
  int err = posix_spawn(&pid, binary.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (err != 0) return fail_errno(err, "run {}", binary);
  return pid;
}

// Feeds and reads at once: a plugin that prints before it has read everything must not block both sides.
Result<std::string> exchange(Pipe in, Pipe out, std::string_view input) {
  fcntl(in.write.get(), F_SETFL, O_NONBLOCK);
  std::string output;
  std::array<char, 4096> buf{};
  for (;;) {
    std::array<pollfd, 2> p{pollfd{out.read.get(), POLLIN, 0}, pollfd{in.write.get(), POLLOUT, 0}};
    if (poll(p.data(), in.write ? 2 : 1, -1) < 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, "poll");
    }
    if (in.write && p[1].revents != 0) {
      auto n = ::write(in.write.get(), input.data(), input.size());
      if (n > 0) input.remove_prefix(static_cast<std::size_t>(n));
      // A plugin that does not read its input to the end may still answer.
      if (input.empty() || (n < 0 && errno != EAGAIN && errno != EINTR)) in.write.reset();
    }
    if (p[0].revents != 0) {
      auto n = ::read(out.read.get(), buf.data(), buf.size());
      if (n == 0) return output;
      if (n < 0 && errno != EINTR) return fail_errno(errno, "read");
      if (n > 0) output.append(buf.data(), static_cast<std::size_t>(n));
      if (output.size() > kMaxOutputBytes) return fail(EFBIG, "it printed more than {} bytes", kMaxOutputBytes);
    }
  }
}

Outcome<std::string> refused(const DelegateCall& call, const std::string& output) {
  boost::system::error_code ec;
  auto v = json::parse(output, ec);
  const auto* o = ec ? nullptr : v.if_object();
  const auto* code = o ? o->if_contains("code") : nullptr;
  const auto* msg = o ? o->if_contains("msg") : nullptr;
  if (!code || !code->is_int64() || !msg || !msg->is_string())
    return failure(Code::kDelegateFailed, "ipam.type {}: {} failed without a CNI error", call.type, call.command);
  const auto* details = o->if_contains("details");
  return std::unexpected(Failure{static_cast<Code>(code->get_int64()),
                                 fmt::format("ipam.type {}: {}", call.type, std::string_view(msg->get_string())),
                                 details && details->is_string() ? std::string(details->get_string()) : ""});
}

}  // namespace

Outcome<std::string> run_delegate(const DelegateCall& call) {
  auto binary = find_binary(call);
  if (binary.empty()) return failure(Code::kDelegateFailed, "ipam.type: plugin \"{}\" is not in CNI_PATH", call.type);
  auto in = make_pipe();
  auto out = make_pipe();
  if (!in || !out) return failure(Code::kIo, "ipam.type {}: cannot make pipes", call.type);
  auto pid = spawn(binary, call.command, in->read.get(), out->write.get());
  if (!pid) return as_failure(Code::kDelegateFailed, pid);
  in->read.reset();
  out->write.reset();
  auto output = exchange(std::move(*in), std::move(*out), call.input);
  int status = 0;
  while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!output) return failure(Code::kDelegateFailed, "ipam.type {}: {}", call.type, output.error().text);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return refused(call, *output);
  return *output;
}

}  // namespace hawser::cni
