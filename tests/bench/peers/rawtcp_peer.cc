// The floor under every protocol: plain TCP sockets, no framing beyond a 4-byte command, the fused kernels, one thread
// per connection. usage: rawtcp_peer server|worker SHAPES OPT RANK PORT
//
// The server reads a tensor's gradient into a scratch buffer that it reuses and applies it, tensor by tensor; then it
// writes the weights. With two workers a lock is held for the update of one tensor.
#include <arpa/inet.h>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

#include "workload.h"

enum { PUSH = 1, PULL = 2, SMALL = 4 };

static workload x; // the small tensor is the last
static std::string opt;
static std::vector<float> w, m, v;
static std::vector<long> t;
static std::mutex lock;

static bool whole(bool in, int fd, void *data, size_t n) {
  char *p = (char *)data;
  while (n > 0) {
    ssize_t k = in ? read(fd, p, n) : write(fd, p, n);
    if (k <= 0)
      return false;
    p += k;
    n -= (size_t)k;
  }
  return true;
}

static void apply(size_t k, const float *g) {
  std::lock_guard<std::mutex> hold(lock);
  size_t o = x.offset[k], n = x.size[k];
  if (opt == "sgd")
    sgd_step(&w[o], g, n);
  else if (opt == "momentum")
    momentum_step(&w[o], &m[o], g, n);
  else
    adam_step(&w[o], &m[o], &v[o], g, n, ++t[k]);
}

static void span(int command, size_t *first, size_t *end) {
  size_t count = x.size.size() - 1;
  *first = command & SMALL ? count : 0;
  *end = command & SMALL ? count + 1 : count;
}

static void serve(int fd) {
  std::vector<float> scratch(*std::max_element(x.size.begin(), x.size.end()));
  int command;
  while (whole(true, fd, &command, sizeof command)) {
    size_t first, end;
    char done = 1;
    span(command, &first, &end);
    if (command & PUSH)
      for (size_t k = first; k < end; k++) {
        if (!whole(true, fd, scratch.data(), x.size[k] * 4))
          return;
        apply(k, scratch.data());
      }
    if (command & PULL)
      whole(false, fd, &w[x.offset[first]], (x.offset[end] - x.offset[first]) * 4);
    else
      whole(false, fd, &done, 1);
  }
}

static void call(int fd, int command, float *g, float *into) {
  size_t first, end;
  char done;
  span(command, &first, &end);
  size_t o = x.offset[first], bytes = (x.offset[end] - o) * 4;
  bool ok = whole(false, fd, &command, sizeof command);
  if (command & PUSH)
    ok = ok && whole(false, fd, g + o, bytes);
  ok = ok && (command & PULL ? whole(true, fd, into + o, bytes) : whole(true, fd, &done, 1));
  if (!ok)
    exit(1);
}

static void work(int fd, const workload &full, int rank) {
  std::vector<float> g(x.offset.back()), into(x.offset.back());
  for (size_t k = 0; k < x.size.size(); k++)
    for (size_t j = 0; j < x.size[k]; j++)
      g[x.offset[k] + j] = gradient(j);
  auto step = [&](int command) { return [&, command] { call(fd, command, g.data(), into.data()); }; };
  if (rank == 0) {
    step(PUSH | PULL)();
    step(PUSH | PULL)();
    say_ready(opt, full, into.data());
  } else {
    say_ready(opt, full, NULL);
  }
  answer_phases({{"pushpull", step(PUSH | PULL)},
                 {"push", step(PUSH)},
                 {"pull", step(PULL)},
                 {"small", step(PUSH | PULL | SMALL)}});
}

int main(int argc, char **argv) {
  if (argc != 6)
    return 2;
  workload full = x = load_workload(argv[2]);
  x.size.push_back(256);
  x.offset.push_back(x.offset.back() + 256);
  opt = argv[3];
  struct sockaddr_in a = {};
  a.sin_family = AF_INET;
  a.sin_port = htons((uint16_t)atoi(argv[5]));
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  if (strcmp(argv[1], "worker") == 0) {
    for (int i = 0; connect(fd, (struct sockaddr *)&a, sizeof a) != 0; i++) {
      if (i == 1000)
        return 1;
      close(fd);
      usleep(10000);
      fd = socket(AF_INET, SOCK_STREAM, 0);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    work(fd, full, atoi(argv[4]));
    return 0;
  }
  w.resize(x.offset.back());
  t.resize(x.size.size());
  if (opt != "sgd")
    m.resize(w.size());
  if (opt == "adam")
    v.resize(w.size());
  for (size_t k = 0; k < full.size.size(); k++)
    std::fill(&w[x.offset[k]], &w[x.offset[k]] + x.size[k], first_weight(k));
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 8) != 0)
    return 1;
  for (;;) {
    int c = accept(fd, NULL, NULL);
    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    std::thread(serve, c).detach();
  }
}
