// SPDX-License-Identifier: Apache-2.0
// The sandbox's first process: holds the pod's namespaces, reaps what is left to it, and ends at once on SIGTERM or SIGINT.
// With shareProcessNamespace it is PID 1 of every container of the pod, so reaping is its duty.
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) { _exit(signal == SIGTERM || signal == SIGINT ? 0 : 1); }

static void reap(int signal) {
  (void)signal;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction a = {.sa_handler = end}, r = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
  sigaction(SIGTERM, &a, NULL);
  sigaction(SIGINT, &a, NULL);
  sigaction(SIGCHLD, &r, NULL);
  for (;;) pause();
}
