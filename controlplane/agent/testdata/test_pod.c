// SPDX-License-Identifier: Apache-2.0
// The one program of the agent's test images, linked statically: what it does is its first argument.
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

extern char** environ;

static void on_term(int sig) {
  (void)sig;
  _exit(0);
}

static void wait_for_ever(void) {
  for (;;) pause();
}

// Answers every connection with 200, or with 503 until the file `gate` exists ("" for no gate).
static int serve(int port, const char* gate) {
  int s = socket(AF_INET, SOCK_STREAM, 0);
  int one = 1;
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  if (bind(s, (struct sockaddr*)&a, sizeof a) != 0 || listen(s, 16) != 0) return 1;
  for (;;) {
    int c = accept(s, 0, 0);
    if (c < 0) continue;
    char buf[2048];
    if (read(c, buf, sizeof buf) < 0) buf[0] = 0;
    int open = !*gate || access(gate, F_OK) == 0;
    const char* r = open ? "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
                         : "HTTP/1.1 503 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    if (write(c, r, strlen(r)) < 0) _exit(3);
    close(c);
  }
}

// Prints what an HTTP server answers to GET /; status 0 if it answered anything.
static int fetch(const char* ip, int port) {
  int s = socket(AF_INET, SOCK_STREAM, 0);
  struct timeval limit = {.tv_sec = 10};
  setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  if (inet_pton(AF_INET, ip, &a.sin_addr) != 1 || connect(s, (struct sockaddr*)&a, sizeof a) != 0) return 1;
  const char* request = "GET / HTTP/1.0\r\n\r\n";
  if (write(s, request, strlen(request)) < 0) return 2;
  char buf[2048];
  ssize_t n;
  int status = 3;
  while ((n = read(s, buf, sizeof buf)) > 0) {
    if (write(1, buf, (size_t)n) < 0) return 4;
    status = 0;
  }
  return status;
}

static int cat(const char* path) {
  char buf[4096];
  int fd = open(path, O_RDONLY);
  if (fd < 0) return 1;
  ssize_t n;
  while ((n = read(fd, buf, sizeof buf)) > 0)
    if (write(1, buf, (size_t)n) < 0) return 2;
  return 0;
}

int main(int argc, char** argv) {
  const char* verb = argc > 1 ? argv[1] : "pause";
  const char* a = argc > 2 ? argv[2] : "";
  const char* b = argc > 3 ? argv[3] : "";
  if (strcmp(verb, "stubborn") == 0) {
    signal(SIGTERM, SIG_IGN);
    wait_for_ever();
  }
  signal(SIGTERM, on_term);
  signal(SIGINT, on_term);
  if (strcmp(verb, "exit") == 0) return atoi(a);
  if (strcmp(verb, "serve") == 0) return serve(atoi(a), b);
  if (strcmp(verb, "fetch") == 0) return fetch(a, atoi(b));
  if (strcmp(verb, "cat") == 0) return cat(a);
  if (strcmp(verb, "touch") == 0) return open(a, O_CREAT | O_WRONLY, 0644) < 0;
  if (strcmp(verb, "test") == 0) return access(a, F_OK) == 0 ? 0 : 1;
  if (strcmp(verb, "message") == 0) {
    int fd = open("/dev/termination-log", O_WRONLY);
    if (fd < 0 || write(fd, a, strlen(a)) < 0) return 9;
    return atoi(b);
  }
  if (strcmp(verb, "lines") == 0) {
    for (int i = 0; i < atoi(a); ++i) printf("line %d\n", i);
    fflush(stdout);
    wait_for_ever();
  }
  if (strcmp(verb, "env") == 0) {
    for (char** e = environ; *e; ++e) puts(*e);
    fflush(stdout);
  }
  if (strcmp(verb, "catwait") == 0) {
    fflush(stdout);
    cat(a);
  }
  wait_for_ever();
}
